"""A training program as a child of the flow: it ends when the flow ends, however that ends.

In:    a command, and a function that is told each line the child prints.
Out:   nothing; a child that fails is a `RuntimeError` with its last lines.
Rerun: starts the command again; the child itself continues from its last checkpoint.

Call it from the flow's main thread: the signal that tells the child of its parent's death fires
when the *thread* that started it ends.
"""

import ctypes
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def launch(
    command: Sequence[str], tell: Callable[[str], None], *, grace_seconds: float = 20.0
) -> None:
    """Run `command` to its end. Cancelled, it gets SIGTERM and `grace_seconds` to checkpoint."""
    # Below the 30 s that a Prefect worker gives a cancelled flow.
    child = subprocess.Popen(
        list(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        bufsize=1,
        start_new_session=True,
        preexec_fn=_die_with_parent,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    last: deque[str] = deque(maxlen=30)
    try:
        assert child.stdout is not None
        for line in child.stdout:
            last.append(line.rstrip())
            tell(line.rstrip())
        code = child.wait()
    finally:  # also on Prefect's TerminationSignal, a BaseException
        if child.poll() is None:
            _end(child, grace_seconds)
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n" + "\n".join(last))


def _die_with_parent() -> None:
    # Linux only; elsewhere the call does not exist and a killed flow leaves its child behind.
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(child: subprocess.Popen[str], grace_seconds: float) -> None:
    os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
