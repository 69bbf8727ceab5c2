"""The sum of a file that grows is the sum of the file, and a writer that fails leaves no thread."""

import hashlib
import random
import threading
import time
from pathlib import Path

import pytest

from pipeline.growing import summed_beside


@pytest.mark.parametrize("pauses", [False, True])
def test_the_sum_is_that_of_the_whole_file_whatever_it_is_called(tmp_path, pauses) -> None:
    pieces = [random.Random(n).randbytes(700_000 * n) for n in range(4)]
    with summed_beside(tmp_path) as finished:
        with (tmp_path / "growing").open("wb", buffering=0) as file:
            for piece in pieces:
                file.write(piece)
                time.sleep(0.03 * pauses)
        (tmp_path / "growing").rename(tmp_path / "whole")
        assert finished() == hashlib.sha256(b"".join(pieces)).hexdigest()


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
