"""A disk that is full or closed: one sentence with the place, and then the same bytes."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors import SafetensorError

from pipeline.config import load_run
from pipeline.disk import DiskRefused, refusal, unwritable, writing
from pipeline.preflight import check_root
from tests.pipeline.conftest import VALUES

HERE = Path(__file__).parent.parent.parent
# In a user namespace of its own, where a file system can be mounted without rights.
MOUNTED = """
set -e
mount -t tmpfs -o size={size} tmpfs "$1"
"$2" tests/pipeline/small_disk.py "$1" "$3"
"""


def mountable() -> bool:
    words = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_mounts = pytest.mark.skipif(not mountable(), reason="no user namespaces to mount in")


def small_disk(folder: Path, what: str, size: str) -> list[str]:
    script = MOUNTED.format(size=size)
    words = ["unshare", "-rm", "bash", "-c", script, "-", str(folder), sys.executable, what]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=HERE, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@needs_mounts
def test_a_full_disk_ends_a_stage_with_one_sentence_and_the_next_run_goes_on(tmp_path):
    said = small_disk(tmp_path, "tables", "320k")
    assert said[0].startswith("refused: the disk is full at ")
    assert "tables/images-" in said[0]
    assert "run the same command again; what is whole is kept" in said[0]
    assert said[1] == "leftovers: 0"
    kept, made = int(said[2].split()[1]), int(said[3].split()[1])
    assert kept > 0
    assert made > 0
    assert said[4] == "the same bytes as on a large disk: True"


@pytest.mark.slow
@needs_mounts
def test_a_full_disk_ends_a_training_with_one_sentence_and_the_state_before_it_goes_on(tmp_path):
    said = small_disk(tmp_path, "training", "160k")
    assert said[0].startswith("refused: the disk is full at ")
    assert said[1:] == ["states kept: True", "the same weights as on a large disk: True"]


@needs_mounts
def test_a_read_only_root_is_refused_before_any_work_and_goes_on_when_it_is_writable(tmp_path):
    said = small_disk(tmp_path, "read-only", "4m")
    assert said[0].startswith("refused: root: ")
    assert "is on a read-only file system" in said[0]
    assert said[1].startswith("refused: ")
    assert "cannot be written (" in said[1]
    assert said[2:] == ["read: True", "then made: True"]


def test_a_root_that_can_be_made_is_no_problem(tmp_path):
    assert unwritable(tmp_path / "not" / "yet") == ""
    (tmp_path / "debug.yaml").write_text(yaml.safe_dump(VALUES | {"root": str(tmp_path / "new")}))
    check_root(load_run(tmp_path / "debug.yaml"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full at "),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full at "),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be written (Read-only"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written (Permission"),
        (OSError("LanceError(IO): No space left on device (os error 28)"), "the disk is full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "the disk is full"),
    ],
)
def test_what_libraries_say_of_a_disk_becomes_one_sentence(tmp_path, error, said):
    with pytest.raises(DiskRefused) as refused, writing(tmp_path / "file"):
        raise error
    assert said in str(refused.value)
    assert str(tmp_path / "file") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_other_errors_and_other_places_pass_as_they_are(tmp_path):
    other = PermissionError(errno.EACCES, "Permission denied", "/somewhere/else/weights")
    assert refusal(tmp_path / "file", other) == ""
    with pytest.raises(ValueError, match="a null"), writing(tmp_path):
        raise ValueError("a null in a column")
