"""The sum of a file that grows is the sum of the file, and a writer that fails leaves no thread."""

import hashlib
import os
import random
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline import growing
from pipeline.growing import summed_beside


@pytest.mark.parametrize("pauses", [False, True])
def test_the_sum_is_that_of_the_whole_file_whatever_it_is_called(
    tmp_path: Path, pauses: bool
) -> None:
    pieces = [random.Random(n).randbytes(700_000 * n) for n in range(4)]
    with summed_beside(tmp_path) as finished:
        with (tmp_path / "growing").open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
                time.sleep(0.03 * pauses)
        (tmp_path / "growing").rename(tmp_path / "whole")
        assert finished() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_a_large_file_does_not_fill_the_memory(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(growing, "WINDOW", 2 * growing.PIECE)
    content = random.Random(0).randbytes(24 * growing.PIECE)
    (tmp_path / "beside").mkdir()
    with summed_beside(tmp_path / "beside") as finished:
        _write(tmp_path / "beside" / "large", content)
        assert finished() == hashlib.sha256(content).hexdigest()
    plain = _write(tmp_path / "plain", content)
    assert _in_memory(plain) > 0.9
    with plain.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if _in_memory(plain) > 0.5:
        pytest.skip("this file system keeps its files in memory")
    assert _in_memory(tmp_path / "beside" / "large") < 0.5


def _write(path: Path, content: bytes) -> Path:
    with path.open("wb", buffering=0) as file:
        for first in range(0, len(content), growing.PIECE):
            file.write(content[first : first + growing.PIECE])
            os.fsync(file.fileno())  # only what is on the disk can be dropped
            time.sleep(growing.PAUSE)
    return path


def _in_memory(path: Path) -> float:
    """The share of a file's MiB whose first byte the system has at hand."""
    there, places = 0, range(0, path.stat().st_size, growing.PIECE)
    with path.open("rb") as file:
        for place in places:
            with suppress(BlockingIOError):
                there += os.preadv(file.fileno(), [bytearray(1)], place, os.RWF_NOWAIT)
    return there / len(places)


@pytest.mark.parametrize("begun", [False, True])
def test_a_writer_that_fails_waits_for_no_sum(tmp_path: Path, begun) -> None:
    before = threading.active_count()

    def fail() -> None:
        with summed_beside(tmp_path):
            if begun:
                (tmp_path / "growing").write_bytes(b"half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="is full"):
        fail()
    assert threading.active_count() == before
