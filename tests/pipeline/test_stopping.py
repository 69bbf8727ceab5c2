"""A training that is told to end saves the step it is in; the next goes on there, bit for bit."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline import stopping
from pipeline.states import saved
from pipeline.stopping import LEFT, Ending, alone
from pipeline.training import Part
from tests.pipeline.test_training import Killed, step_loss, train


def told_at(when: int):  # type: ignore[no-untyped-def]
    """The loss of `test_training`, with SIGTERM in the middle of a step."""

    def loss(model: nn.Module, step: int, part: Part) -> tuple[Tensor, Mapping[str, Tensor]]:
        if step == when:
            os.kill(os.getpid(), signal.SIGTERM)
        return step_loss()(model, step, part)

    return loss


@pytest.fixture(autouse=True)
def no_alarm() -> object:
    yield
    signal.alarm(0)


def test_told_to_end_it_saves_the_step_it_is_in(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        train(tmp_path, told_at(9))
    assert left.value.code == LEFT == 143
    assert [path.name for path in saved(tmp_path)][-1] == "state-000000010.pt"


def test_what_was_told_to_end_ends_bit_for_bit_where_an_undisturbed_one_does(
    tmp_path: Path,
) -> None:
    whole = train(tmp_path / "whole")
    for step in (2, 7, 8, 19):
        with pytest.raises(SystemExit):
            train(tmp_path / "told", told_at(step))
    again = train(tmp_path / "told")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "told")]
    cut = [[row.split('"samples_per_second"')[0] for row in log.splitlines()] for log in logs]
    assert cut[0] == cut[1]


def test_told_by_a_file_it_leaves_as_by_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "LISTEN_SECONDS", 0.001)
    word = tmp_path / "word"

    def loss(model: nn.Module, step: int, part: Part) -> tuple[Tensor, Mapping[str, Tensor]]:
        if step == 9:
            word.touch()
            assert stopping._WORD.wait(20)
        return step_loss()(model, step, part)

    with pytest.raises(SystemExit) as left, stopping.listening(word):
        train(tmp_path, loss)
    assert left.value.code == LEFT
    assert saved(tmp_path)[-1].name == "state-000000010.pt"
    train(tmp_path)  # who was not told goes to its end
    assert saved(tmp_path)[-1].name == "state-000000020.pt"


def test_after_the_training_sigterm_is_what_it_was(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train(tmp_path, steps=1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_who_is_slow_to_leave_is_ended_by_the_kernel() -> None:
    ending = Ending()
    ending.hear(signal.SIGTERM, None)
    ending.hear(signal.SIGTERM, None)  # said twice, as torchrun does: the time is not begun anew
    assert 0 < signal.alarm(0) <= 12


def test_what_a_kill_left_of_a_state_is_removed(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, step_loss(kill_at=9))
    part = tmp_path / ".state-000000012.pt.part"
    part.write_bytes(b"half a state")
    train(tmp_path)
    assert not part.exists()


def test_two_trainings_of_one_folder_take_turns(tmp_path: Path) -> None:
    code = (
        "import fcntl, sys\n"
        f"file = open({str(tmp_path / '.lock')!r}, 'w'); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(ValueError, match="another training is at work"):
            alone(tmp_path, seconds=0.3).__enter__()
        other.send_signal(signal.SIGKILL)
        with alone(tmp_path, seconds=10):  # the lock went with the process
            pass
