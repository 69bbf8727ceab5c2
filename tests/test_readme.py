"""What the README and the deployments name is there, and every run validates."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from pipeline.config import RUNS, load_run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
DEPLOYMENTS = yaml.safe_load((ROOT / "infra/prefect.yaml").read_text("utf-8"))["deployments"]


def test_every_path_of_the_readme_exists() -> None:
    named = set(re.findall(r"`((?:flows|pipeline|lightgen_model|infra|tests)/[\w./-]*)`", README))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 150


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake (\w+)", README)) <= targets


def test_every_deployment_of_the_readme_is_registered() -> None:
    names = {f"{each['entrypoint'].rsplit(':', 1)[1]}/{each['name']}" for each in DEPLOYMENTS}
    assert set(re.findall(r"deployment run (\w+/\w+)", README)) <= names
    stages = [
        "captions",
        "images",
        "verdicts",
        "features",
        "student",
        "preferences",
        "dpo",
        "evaluate",
        "distill",
        "plan",
    ]
    assert {f"{stage}/{run}" for stage in stages for run in ("tiny", "full")} <= names
    assert {f"plan/{path.stem}" for path in RUNS.glob("*.yaml")} <= names


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda each: each["entrypoint"])
def test_every_deployment_names_a_flow_and_a_run(deployment: dict[str, object]) -> None:
    path, name = str(deployment["entrypoint"]).rsplit(":", 1)
    flow = getattr(import_module(path.removesuffix(".py").replace("/", ".")), name)
    assert flow.name == name
    assert load_run(deployment["name"]).name == deployment["name"]  # type: ignore[arg-type]
    assert deployment["parameters"] == {"run": deployment["name"]}


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_run_validates(path: Path) -> None:
    assert load_run(path).name == path.stem


def test_the_full_run_has_the_published_values() -> None:
    run = load_run("full")
    assert run.student
    assert run.dpo
    assert run.preferences
    first, second = run.student.phases
    assert (first.image_size, first.steps, first.batch_size) == (256, 100_000, 2048)
    assert (first.optimizer.learning_rate, first.optimizer.betas) == (1e-4, (0.9, 0.99))
    assert first.optimizer.weight_decay == 0.02
    assert (second.image_size, second.optimizer.learning_rate) == (512, 1e-5)
    assert (run.dpo.beta, run.dpo.optimizer.learning_rate) == (5000, 1e-8)
    assert (run.preferences.sampling.num_iterations, run.preferences.sampling.guidance) == (64, 4)
