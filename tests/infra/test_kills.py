"""Kill -9 in each data stage of the full run's classes, then the same command: the same files."""

import hashlib
import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline import random_models
from tests.infra import killed_stages
from tests.infra.test_models_run import Judge

Go = Callable[..., int | None]
STAGES = ("captions", "images", "verdicts", "features")
pytestmark = pytest.mark.slow


class Counting(Judge):
    server: Any

    def do_POST(self) -> None:  # noqa: N802
        with self.server.lock:
            self.server.asked += 1
        super().do_POST()


@pytest.fixture
def judge() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    server.lock, server.asked = threading.Lock(), 0
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def go(judge: Any, tmp_path: Path) -> Go:
    """The exit status of a process that makes all data stages, or dies in one."""
    processes = multiprocessing.get_context("forkserver")  # its imports are done once
    processes.set_forkserver_preload([killed_stages.__name__])
    random_models.save(tmp_path / "weights")
    overrides = {
        "captions.rows_per_shard": 8,
        "captions.sources.0.num_captions": 24,
        "images.teacher.repository": str(tmp_path / "weights/flux"),
        "verdicts.judge.endpoints": [f"http://127.0.0.1:{judge.server_address[1]}/v1"],
        "features.autoencoder": str(tmp_path / "weights/flux"),
        "features.text_encoder": str(tmp_path / "weights/t5"),
    }

    def run(root: Path, killed_in: str = "") -> int | None:
        given = {**overrides, "root": str(root)}
        process = processes.Process(target=killed_stages.make, args=(given, killed_in))
        process.start()
        process.join()
        return process.exitcode

    return run


def sums(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.glob("tables/*/data/*.lance")
    }


def test_a_kill_in_any_data_stage_costs_one_shard_and_no_byte(
    go: Go, judge: Any, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert go(whole) == 0
    asked = judge.asked
    for stage in STAGES:
        assert go(killed, stage) == -signal.SIGKILL, stage
    assert go(killed) == 0
    assert sums(killed) == sums(whole)
    assert judge.asked == 2 * asked  # what was answered before the kill was not asked again
    works = Counter((killed / "worked").read_text().splitlines())
    assert set(works) == set((whole / "worked").read_text().splitlines())
    again = Counter(work.split()[0] for work, times in works.items() if times > 1)
    assert again == dict.fromkeys(STAGES, 1)  # the shard that was being worked on
    assert max(works.values()) == 2
