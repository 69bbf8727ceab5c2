"""A child program tells what it prints, and ends when its parent does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.launch import launch

ROOT = Path(__file__).parent.parent.parent


def test_every_line_is_told() -> None:
    lines: list[str] = []
    launch([sys.executable, "-c", "print('one'); print('two')"], lines.append)
    assert lines == ["one", "two"]


def test_a_failing_child_is_an_error_with_its_last_lines() -> None:
    code = "import sys; print('the reason'); sys.exit(3)"
    with pytest.raises(RuntimeError, match=r"ended with 3:\nthe reason"):
        launch([sys.executable, "-c", code], lambda line: None)


def test_an_interrupted_parent_lets_the_child_save(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time, pathlib\n"
        f"def save(*_): pathlib.Path({str(tmp_path / 'saved')!r}).touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('ready')\n"
        "time.sleep(60)"
    )

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch([sys.executable, "-c", code], interrupt)
    assert (tmp_path / "saved").exists()


def test_a_grandchild_in_a_session_of_its_own_ends_too_even_if_it_will_not_hear() -> None:
    stubborn = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    code = (
        "import subprocess, sys; "
        f"subprocess.run([sys.executable, '-c', {stubborn!r}], start_new_session=True)"
    )
    told: list[int] = []

    def interrupt(line: str) -> None:
        told.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch([sys.executable, "-c", code], interrupt, grace_seconds=1)
    assert ended(told[0])


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_killed_parent_takes_the_child_with_it() -> None:
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    code = (
        "import sys; from flows.launch import launch; "
        f"launch([sys.executable, '-c', {child!r}], lambda line: print(line, flush=True))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert ended(pid)


def ended(pid: int, seconds: float = 10) -> bool:
    """Gone, or a zombie that nobody collects."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    return False
