"""What stops `make distill` before it begins is one clear sentence."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TOOLS = ("bash", "dirname", "cksum", "awk", "cat", "mkdir", "grep", "curl", "tr", "ps")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The scripts without an environment, and a PATH of next to nothing."""
    scripts = ("environment.sh", "services.sh", "down.sh", "distill.sh")
    (tmp_path / "infra" / "requirements").mkdir(parents=True)
    for name in (*scripts, "requirements/cpu.txt", "requirements/gpu.txt"):
        shutil.copy(ROOT / "infra" / name, tmp_path / "infra" / name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        place = shutil.which(tool)
        assert place, tool
        (tmp_path / "bin" / tool).symlink_to(place)
    return tmp_path


def free_disk(clone: Path, kib: int) -> None:
    program = clone / "bin" / "df"
    program.write_text(f'#!/bin/sh\necho "Filesystem"\necho "disk 0 0 {kib} 0% /"\n')
    program.chmod(0o755)


def said(clone: Path, script: str, **environment: str) -> str:
    """The last sentence of a script that fails."""
    done = subprocess.run(
        [str(clone / "bin" / "bash"), "-c", script],
        cwd=clone,
        env={"PATH": str(clone / "bin"), "HOME": os.environ["HOME"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_no_room_on_the_disk(clone: Path) -> None:
    free_disk(clone, 1024 * 1024)
    assert said(clone, "bash infra/distill.sh") == (
        "Only 1024 MiB are free here; the environment and the run need 5 GiB."
    )
    assert not (clone / ".venv").exists()


def test_no_python_that_fits(clone: Path) -> None:
    free_disk(clone, 10 * 1024 * 1024)
    old = clone / "bin" / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    assert said(clone, "bash infra/distill.sh").startswith("Python 3.11 or 3.12 is needed")


def test_a_port_in_use(clone: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        sentence = said(clone, "source infra/services.sh; start_server", PORT=port)
    assert sentence == (
        f"Port {port} is in use by another program; choose a free one: make distill PORT=4300."
    )


def test_down_ends_the_runs_of_its_worker(clone: Path) -> None:
    work = [str(clone / "bin" / "bash"), "-c", "sleep 300 & echo $!; wait", "prefect worker start"]
    with subprocess.Popen(work, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        run = int(worker.stdout.readline())
        state = clone / "artifacts" / ".prefect"
        state.mkdir(parents=True)
        (state / "worker.pid").write_text(str(worker.pid))
        subprocess.run(
            [str(clone / "bin" / "bash"), "-c", "source infra/services.sh; stop_runs"],
            cwd=clone,
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]},
            check=True,
            timeout=60,
        )
        worker.wait(10)
    with pytest.raises(ProcessLookupError):
        os.kill(run, 0)
