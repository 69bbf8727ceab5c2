"""The shards of a stage: tried again, quarantined, side by side, only what is missing."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prefect import flow

from flows.shards import Outcome, make_shards, whole_ones
from pipeline.config import RunConfig
from pipeline.quarantine import ShardsQuarantined
from pipeline.spending import Meter
from pipeline.tables import Manifest, Shard, Table, TableFolder, Work

NUMBERS = Table("numbers", 1, pa.schema([pa.field("number", pa.int64(), False)]))
pytestmark = pytest.mark.usefixtures("server")


class Numbers:
    """A stage whose shards hold numbers; those in `fails` fail so often."""

    STAGE = "images"  # one that holds slots

    def __init__(self, root: Path, fails: Mapping[str, list[Exception]] | None = None) -> None:
        self.folder, self.fails = TableFolder(root, NUMBERS, None), dict(fails or {})
        self.tries: list[str] = []
        self.at_once, self.most, self.lock = 0, 0, threading.Lock()

    def side_by_side(self, config: RunConfig) -> bool:
        return True

    def whole(
        self, config: RunConfig, upstream: Mapping[str, Manifest], work: Work
    ) -> list[Shard] | None:
        shard = self.folder.whole_shard(work.name)
        return [shard] if shard else None

    def make(
        self,
        config: RunConfig,
        upstream: Mapping[str, Manifest],
        work: Work,
        progress: Callable[[int], None],
    ) -> list[Shard]:
        with self.lock:
            self.tries.append(work.name)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        try:
            if self.fails.get(work.name):
                raise self.fails[work.name].pop()
            rows = pa.table({"number": range(work.first, work.first + work.rows)}, NUMBERS.schema)
            progress(work.rows)
            return [self.folder.write_shard(work.name, [rows])]
        finally:
            with self.lock:
                self.at_once -= 1


def plan(shards: int) -> list[Work]:
    return [Work(f"s{number}", (), 10 * number, 10) for number in range(shards)]


def run(stage: Numbers, shards: int, **engine: Any) -> Outcome:
    config = config_of(stage.folder.root, {"retry_seconds": 0, **engine})

    @flow
    def shards_of() -> Outcome:
        meter = Meter(stage.folder.root, stage.STAGE)
        return make_shards(stage, config, {}, plan(shards), meter)

    return shards_of()


def config_of(root: Path, engine: Mapping[str, Any]) -> RunConfig:
    captions = {"sources": [{"kind": "shapes", "num_captions": 1}]}
    values = {"name": "debug", "root": str(root), "captions": captions, "engine": engine}
    return RunConfig.model_validate(values)


def sums(root: Path) -> dict[str, str]:
    files = sorted(root.glob("tables/*/data/*.lance"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_shard_that_fails_twice_is_made_at_its_third_try(tmp_path: Path) -> None:
    stage = Numbers(tmp_path, {"s1": [RuntimeError("busy"), RuntimeError("busy")]})
    outcome = run(stage, 3)
    assert stage.tries == ["s0", "s1", "s1", "s1", "s2"]
    assert [shard.name for shard in outcome.shards(plan(3))] == ["s0", "s1", "s2"]
    assert (outcome.made, outcome.given_up) == (30, [])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_shard_that_always_fails_is_quarantined_and_the_others_are_made(
    tmp_path: Path, threads: int
) -> None:
    stage = Numbers(tmp_path, {"s1": [RuntimeError("out of luck")] * 3})
    outcome = run(stage, 4, threads=threads)
    (lost,) = outcome.given_up
    assert (lost.name, lost.rows, lost.tries) == ("s1", 10, 3)
    assert "out of luck" in lost.reason
    assert [shard.name for shard in outcome.shards(plan(4))] == ["s0", "s2", "s3"]
    again = Numbers(tmp_path)
    run(again, 4)
    assert again.tries == ["s1"]


def test_an_error_about_values_ends_the_stage_at_once(tmp_path: Path) -> None:
    stage = Numbers(tmp_path, {"s0": [ValueError("teacher: no such size")]})
    with pytest.raises(ValueError, match="no such size"):
        run(stage, 3)
    assert stage.tries == ["s0"]


def test_failures_in_a_row_end_the_stage(tmp_path: Path) -> None:
    stage = Numbers(tmp_path, {f"s{number}": [RuntimeError("no GPU")] for number in range(1, 6)})
    with pytest.raises(ShardsQuarantined, match="2 shards in a row failed"):
        run(stage, 6, retries=0, failures_in_a_row=2)
    assert stage.tries == ["s0", "s1", "s2"]


def test_threads_give_the_bytes_of_one_and_no_more_run_than_allowed(tmp_path: Path) -> None:
    one, three = Numbers(tmp_path / "one"), Numbers(tmp_path / "three")
    alone, together = run(one, 12), run(three, 12, threads=3)
    assert alone.shards(plan(12)) == together.shards(plan(12))
    assert sums(tmp_path / "one") == sums(tmp_path / "three")
    assert one.most == 1
    assert 1 <= three.most <= 3


def test_a_growing_input_makes_only_its_shards(tmp_path: Path) -> None:
    run(Numbers(tmp_path), 4)
    grown = Numbers(tmp_path)
    outcome = run(grown, 6, threads=2)
    assert sorted(grown.tries) == ["s4", "s5"]
    assert outcome.made == 20
    assert len(outcome.shards(plan(6))) == 6


def test_a_damaged_shard_is_not_whole(tmp_path: Path) -> None:
    stage = Numbers(tmp_path)
    run(stage, 3)
    file = tmp_path / stage.folder.place / "data" / "s1.lance"
    file.write_bytes(file.read_bytes()[:-1])
    found = whole_ones(stage, config_of(tmp_path, {}), {}, plan(3))
    assert sorted(found) == ["s0", "s2"]


def test_a_limit_that_the_server_does_not_have_is_named(tmp_path: Path) -> None:
    stage = Numbers(tmp_path)
    with pytest.raises(ValueError, match="prefect gcl create gpus --limit 1"):
        run(stage, 1, slots="gpus")
    assert stage.tries == []


def test_slots_hold_back_threads(tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    limit = GlobalConcurrencyLimitCreate(name="one-gpu", limit=1)
    with get_client(sync_client=True) as client:
        client._client.post(
            "/v2/concurrency_limits/", json=limit.model_dump(mode="json", exclude_unset=True)
        )
    stage = Numbers(tmp_path)
    outcome = run(stage, 4, threads=3, slots="one-gpu")
    assert stage.most == 1
    assert outcome.made == 40


def test_a_shard_in_another_thread_ends_at_its_next_rows_when_the_flow_ends(tmp_path: Path) -> None:
    stage = Endless(tmp_path, {"s1": [ValueError("no such size")]})
    with pytest.raises(ValueError, match="no such size"):
        run(stage, 2, threads=2)
    assert stage.ended.wait(10)
    assert sums(tmp_path) == {}


class Endless(Numbers):
    """Its first shard tells of rows for ever."""

    def __init__(self, root: Path, fails: Mapping[str, list[Exception]]) -> None:
        super().__init__(root, fails)
        self.ended = threading.Event()

    def make(
        self,
        config: RunConfig,
        upstream: Mapping[str, Manifest],
        work: Work,
        progress: Callable[[int], None],
    ) -> list[Shard]:
        if work.name != "s0":
            return super().make(config, upstream, work, progress)
        try:
            for _ in range(10_000):
                progress(1)
                time.sleep(0.01)
        finally:
            self.ended.set()
        return []
