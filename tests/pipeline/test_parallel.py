"""Two real processes train as one: the same rows, the same curve, a state for either."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lightgen_model.config import debug
from lightgen_model.model import LightGen
from pipeline.checkpoints import read_rows
from pipeline.parallel import recompute_activations, update_average
from pipeline.states import saved
from tests.pipeline import two_processes

pytestmark = pytest.mark.slow  # seven processes start, each of which imports torch
ROOT = Path(__file__).parent.parent.parent
FSDP2 = {"strategy": "fsdp2"}
JOBS: list[dict[str, Any]] = [
    {"name": "killed"},
    {"name": "ddp"},
    {"name": "fsdp2", "loop": {**FSDP2, "accumulation": 2, "checkpoint_activations": True}},
    {"name": "muon", "loop": FSDP2, "kind": "muon"},
    {"name": "nan-ddp", "nan": [1, 3]},
    {"name": "nan-fsdp2", "nan": [1, 3], "loop": FSDP2},
    {"name": "blind", "blind": True},
    {"name": "resumed-ddp"},
    {"name": "resumed-fsdp2", "loop": FSDP2},
]


def by_two(out: Path, jobs: Sequence[Mapping[str, Any]]) -> subprocess.Popen[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    return subprocess.Popen(
        [*launch, str(ROOT / "tests/pipeline/two_processes.py"), str(out), json.dumps(jobs)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def by_one(out: Path, **job: Any) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loop = {"num_processes": 1, **job.pop("loop", {})}
    two_processes.run({"loop": loop, **job}, out, Accelerator(cpu=True))
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process made, and then two: among it trainings that one began and two go on with."""
    folder = tmp_path_factory.mktemp("parallel")
    killed = by_two(folder, [{"name": "killed", "kill": [1, 3]}])
    by_one(folder, name="one")
    by_one(folder, name="one-muon", kind="muon")
    for name in ("resumed-ddp", "resumed-fsdp2"):
        by_one(folder, name=name, steps=4)
        (folder / name / "weights.pt").unlink()
    _, words = killed.communicate()
    assert killed.returncode != 0
    assert "SIGKILL" in words, words[-3000:]
    done = by_two(folder, JOBS)
    _, words = done.communicate()
    assert done.returncode == 0, words[-3000:]
    return folder


def curve(out: Path, name: str, column: str = "loss") -> list[float]:
    return [row[column] for row in read_rows(out / name / "log.jsonl")]


def weights(out: Path, name: str) -> Tensor:
    values = torch.load(out / name / "weights.pt", weights_only=True)
    return torch.cat([value.flatten() for value in values.values()])


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "resumed-ddp", "resumed-fsdp2"])
def test_two_processes_learn_what_one_does(out: Path, name: str) -> None:
    assert curve(out, name) == pytest.approx(curve(out, "one"), rel=1e-5)
    assert curve(out, name, "grad_norm") == pytest.approx(curve(out, "one", "grad_norm"), rel=1e-3)
    assert torch.allclose(weights(out, name), weights(out, "one"), atol=1e-4)


def test_muon_learns_in_shards_what_it_does_whole(out: Path) -> None:
    assert curve(out, "muon") == pytest.approx(curve(out, "one-muon"), rel=1e-2)
    assert curve(out, "muon") != curve(out, "one")


@pytest.mark.parametrize("name", ["ddp", "fsdp2"])
def test_processes_see_disjoint_rows_that_make_the_batch(out: Path, name: str) -> None:
    one = json.loads((out / "one" / "rows-0.json").read_text())
    two = [json.loads((out / name / f"rows-{rank}.json").read_text()) for rank in range(2)]
    assert len(one) == two_processes.STEPS
    for step, rows in one.items():
        assert [len(rank[step]) for rank in two] == [4, 4]
        assert two[0][step] + two[1][step] == rows


@pytest.mark.parametrize("name", ["nan-ddp", "nan-fsdp2"])
def test_a_bad_step_of_one_process_is_skipped_by_all(out: Path, name: str) -> None:
    assert curve(out, name, "skipped") == [0, 0, 0, 1, 1, 1]
    assert curve(out, name)[:3] == pytest.approx(curve(out, "one")[:3], rel=1e-5)
    assert weights(out, name).isfinite().all()


def test_a_process_whose_pictures_are_all_hidden_holds_nobody_up(out: Path) -> None:
    assert len(curve(out, "blind")) == two_processes.STEPS
    assert weights(out, "blind").isfinite().all()


def test_a_state_knows_nothing_of_the_processes_that_wrote_it(out: Path) -> None:
    states = [torch.load(saved(out / n)[-1], weights_only=True) for n in ("one", "ddp", "fsdp2")]
    shapes = [{name: value.shape for name, value in state["model"].items()} for state in states]
    assert shapes[0] == shapes[1] == shapes[2]
    moments = [set(state["optimizer"]["state"]) for state in states]
    assert moments[0] == moments[1] == moments[2] == set(shapes[0])


def test_two_processes_killed_at_a_step_end_bit_for_bit_where_they_would(out: Path) -> None:
    starts = (out / "killed" / "starts").read_text().split()
    assert starts == ["0", "2"]
    assert torch.equal(weights(out, "killed"), weights(out, "ddp"))
    assert curve(out, "killed") == curve(out, "ddp")


def test_recomputing_activations_changes_nothing() -> None:
    plain, saving = LightGen(debug()), LightGen(debug())
    saving.load_state_dict(plain.state_dict())
    recompute_activations(saving)
    assert list(plain.state_dict()) == list(saving.state_dict())
    x = torch.randn(2, 16, 32)
    grads = []
    for model in (plain, saving):
        out = x
        for block in [*model.encoder_blocks, *model.decoder_blocks]:
            out = block(out)
        out.square().sum().backward()
        grads.append([p.grad for p in model.encoder_blocks.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 0
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_the_average_is_warmed_up() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = {"weight": torch.zeros(1, 1)}
    nn.init.ones_(model.weight)
    update_average(average, model, 0.9999, step=0)
    assert average["weight"].item() == pytest.approx(1 - 1 / 10)
    average = {"weight": torch.zeros(1, 1)}
    update_average(average, model, 0.9, step=10_000)
    assert average["weight"].item() == pytest.approx(0.1)
