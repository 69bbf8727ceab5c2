"""A training program as a child of the flow: it ends when the flow ends, however that ends.

In:    a command, and a function that is told each line the child prints.
Out:   nothing; a child that fails is a `RuntimeError` with its last lines.
Rerun: starts the command again; the child itself continues from its last checkpoint.

Call it from the flow's main thread: the signal that tells the child of its parent's death fires
when the *thread* that started it ends.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence

import psutil

# The child asks the kernel for SIGTERM at its parent's death (prctl PR_SET_PDEATHSIG), then becomes
# the command. Not a `preexec_fn`: that forks this process, whose libraries have threads.
# Linux only; elsewhere a killed flow leaves its child behind.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
prctl = getattr(ctypes.CDLL(None), "prctl", None)
prctl and prctl(1, signal.SIGTERM)
os.execvp(sys.argv[1], sys.argv[1:])
"""

# Ray passes on what its processes print; it would leave out lines that differ in numbers only.
_ALL_LINES = {"RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0"}


def launch(
    command: Sequence[str], tell: Callable[[str], None], *, grace_seconds: float = 15.0
) -> None:
    """Run `command` to its end. Cancelled, all its processes get SIGTERM, time to save, SIGKILL."""
    # The grace: above `pipeline.stopping`, below the 30 s that a Prefect worker gives a flow.
    child = subprocess.Popen(
        [sys.executable, "-c", _DIE_WITH_PARENT, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        bufsize=1,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "TQDM_DISABLE": "1", **_ALL_LINES},
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


def _end(child: subprocess.Popen[str], grace_seconds: float) -> None:
    """End the child and all below it: torchrun gives each of its processes a session of its own."""
    try:
        first = psutil.Process(child.pid)
        family = [*first.children(recursive=True), first]
    except psutil.NoSuchProcess:
        family = []
    for each in family:
        _send(each.terminate)
    _, left = psutil.wait_procs(family, grace_seconds)
    for each in left:
        _send(each.kill)
    child.wait()


def _send(order: Callable[[], None]) -> None:
    try:
        order()
    except psutil.NoSuchProcess:
        return
