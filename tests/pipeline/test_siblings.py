"""A longer training goes on from a shorter one and ends where one from its own start does."""

import json

import pytest
import torch
from safetensors.torch import load_file

from pipeline import student
from pipeline.checkpoints import CURVE
from pipeline.pretraining import train_student
from pipeline.siblings import go_on_from_alike
from pipeline.states import saved, step_of

PHASE = {"batch_size": 4, "optimizer": {"learning_rate": 1e-3, "ema_decay": 0.5}}
VALUES = {
    "evaluation": None,
    "student.tracker": "none",
    "student.log_every": 1,
    "student.checkpoint_every": 2,
    "student.keep_every": 2,
    "student.phases": [
        {**PHASE, "image_size": 64, "steps": 6},
        {**PHASE, "image_size": 128, "steps": 2},
    ],
}


@pytest.fixture
def ended(debug_run, walk):
    """Trains to `until`; its folder and the steps that it took itself."""

    def train(until: int | None, root: str = ""):
        changes = {"student.until": until, **({"root": root} if root else {})}
        config = debug_run({**VALUES, **changes})
        upstream = walk(config)
        train_student(config, upstream)
        return student.folder(config, upstream)

    return train


def weights(place):
    return load_file(place.final / "model.safetensors")


def test_a_longer_training_goes_on_from_a_shorter_one_bit_for_bit(ended, tmp_path) -> None:
    short = ended(4)
    state = saved(short.path / "phase-0-64")[-1]
    (short.path / CURVE).write_text('{"samples": 16}\n{"samples": 20}\n')
    (short.path / "samples").mkdir()
    long = ended(7)
    first = saved(long.path / "phase-0-64")[0]
    assert (first.name, first.stat().st_ino) == (state.name, state.stat().st_ino)
    assert [json.loads(line)["samples"] for line in (long.path / CURVE).open()] == [16]
    alone = ended(7, str(tmp_path / "alone"))
    assert all(torch.equal(x, weights(alone)[name]) for name, x in weights(long).items())
    lines = (long.path / "phase-0-64" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_a_shorter_one_takes_what_the_longer_kept(ended) -> None:
    whole = ended(None)
    assert "." not in whole.fingerprint
    part = ended(4)
    assert part.fingerprint == f"{whole.fingerprint}.4"
    assert [step_of(state) for state in saved(part.path / "phase-0-64")] == [4]
    state = torch.load(saved(part.path / "phase-0-64")[-1], weights_only=True)
    average = weights(part)
    assert all(torch.equal(x, average[name]) for name, x in state["average"].items())
    assert not (part.path / "phase-1-128").exists()


def test_a_state_beyond_the_end_is_not_taken(ended, debug_run, walk) -> None:
    whole = ended(None)
    place = whole.ending(1, 8)
    assert go_on_from_alike(place, "phase-0-64", 1, 0, 4) is None
    assert not place.path.exists()
    assert whole.ending(8, 8) == whole
    assert place.alike() == [whole.path]


def test_an_end_beyond_the_last_step_is_refused(debug_run) -> None:
    with pytest.raises(ValueError, match="until: 9, but the phases have 8 steps together"):
        debug_run({**VALUES, "student.until": 9})
    assert debug_run({**VALUES, "student.until": 7}).student.ends() == [6, 1]
    assert debug_run({**VALUES, "student.until": 6}).student.ends() == [6]
    assert debug_run(VALUES).student.ends() == [6, 2]
