"""The shards of a stage: which are whole, a task for each of the others, tried again, given up.

In:    a stage's plan and the values of `engine`.
Out:   `Outcome`: the shards in the order of the plan, rows made, and shards that were given up.
Rerun: what is whole is kept after its checksum was compared, without a task; the others are made.

A shard that fails is tried again, then quarantined while the others go on. Errors about values are
not tried again: they would meet every shard. Between the flow and its tasks stand at most
`engine.threads` shards, so that nothing grows with the rows but one small record a shard.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from queue import SimpleQueue
from typing import Any, Protocol

from prefect import State, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture

from flows.artifacts import Progress
from pipeline.config import RunConfig
from pipeline.disk import DiskRefused
from pipeline.preflight import ON_DEVICE, on_cluster
from pipeline.quarantine import Quarantined, ShardsQuarantined, reason_of, sentence
from pipeline.spending import Meter, shard_name
from pipeline.tables import Manifest, Shard, TableDamaged, Work

CHECKERS = 4  # threads that sum files
logger = logging.getLogger("pipeline.shards")
Values = list[dict[str, Any]]
Ended = tuple[Work, State[Values]]


class ShardStage(Protocol):
    """What of a stage is needed to make its shards."""

    @property
    def STAGE(self) -> str: ...  # noqa: N802
    def whole(
        self, config: RunConfig, upstream: Mapping[str, Manifest], work: Work
    ) -> list[Shard] | None: ...
    def make(
        self,
        config: RunConfig,
        upstream: Mapping[str, Manifest],
        work: Work,
        progress: Callable[[int], None],
    ) -> list[Shard]: ...
    def side_by_side(self, config: RunConfig) -> bool:
        """Whether several shards may be made at once in a process."""
        ...


class Stopped(Exception):  # noqa: N818
    """The flow ends: a shard in another thread is not worth finishing."""


@dataclass
class Outcome:
    """What became of a plan."""

    found: dict[str, list[Shard]] = field(default_factory=dict)  # by the name of the work
    made: int = 0  # rows
    given_up: list[Quarantined] = field(default_factory=list)

    def shards(self, plan: Sequence[Work]) -> list[Shard]:
        """In the order of the plan, whatever order they were made in."""
        return [shard for work in plan for shard in self.found.get(work.name, ())]


class Tally:
    """Rows done by all shards together, told from any thread."""

    def __init__(self, progress: Progress, done: int) -> None:
        self.progress, self.done = progress, done
        self.rows: dict[str, int] = {}
        self.seconds: dict[str, float] = {}  # that a node took, which is not the time here
        self.lock, self.stopped = threading.Lock(), threading.Event()

    def __call__(self, work: Work, rows: int) -> None:
        if self.stopped.is_set():
            raise Stopped(f"{work.name}: the flow ends")
        with self.lock:
            self.rows[work.name] = rows
            self.progress(self.done + sum(self.rows.values()))

    def finish(self, work: Work) -> bool:
        """Was anything of it made, or was it there?"""
        with self.lock:
            told = self.rows.pop(work.name, None)
            self.done += work.rows
        return told is not None

    def charge(self, meter: Meter, work: Work, shards: Sequence[Shard]) -> None:
        """Their time: what a node told, else all since the last of them."""
        names, seconds = [shard_name(shard) for shard in shards], self.seconds.pop(work.name, None)
        meter.charge(names) if seconds is None else meter.add(names, seconds)


def make_shards(
    stage: ShardStage,
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    plan: Sequence[Work],
    meter: Meter,
) -> Outcome:
    """Every shard that can be made; ShardsQuarantined when shards fail one after another."""
    outcome = Outcome()
    outcome.found = whole_ones(stage, config, upstream, plan)
    missing = {work.name: work for work in plan if work.name not in outcome.found}
    todo = list(missing.values())
    if outcome.found:
        logger.info("%s: %d of %d shards are whole", stage.STAGE, len(outcome.found), len(plan))
    there = sum(work.rows for work in plan) - sum(work.rows for work in todo)
    total = sum(work.rows for work in plan)
    tally = Tally(Progress(f"{config.name}-{stage.STAGE}", total, "rows", first=there), there)
    row = 0  # of failures one after another
    for work, state in finished(stage, config, upstream, todo, tally):
        if state.is_completed():
            new = [Shard(**values) for values in state.result()]
            outcome.found[work.name], row = new, 0
            if tally.finish(work):
                outcome.made += sum(shard.rows for shard in new)
                tally.charge(meter, work, new)
            continue
        tally.finish(work)
        outcome.given_up.append(given_up(work, state, config))
        logger.error("quarantined: %s", sentence(stage.STAGE, outcome.given_up[-1:]))
        row += 1
        if row >= config.engine.failures_in_a_row:
            raise ShardsQuarantined(
                f"{sentence(stage.STAGE, outcome.given_up)}. {row} shards in a row failed, so the "
                "rest was not tried (engine.failures_in_a_row); mend the cause and run again: what "
                "is whole is kept"
            )
    lost = {work.name for work in plan} - {*outcome.found, *(q.name for q in outcome.given_up)}
    assert not lost, f"{stage.STAGE}: nobody made {sorted(lost)}"
    return outcome


def whole_ones(
    stage: ShardStage,
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    plan: Sequence[Work],
) -> dict[str, list[Shard]]:
    """The shards that are on disk as they were written: the store is asked, never Prefect."""
    with ThreadPoolExecutor(CHECKERS) as checkers:
        found = checkers.map(lambda work: stage.whole(config, upstream, work), plan)
        return {work.name: shards for work, shards in zip(plan, found, strict=True) if shards}


def given_up(work: Work, state: State[Values], config: RunConfig) -> Quarantined:
    """Why a shard was not made; errors that would meet every shard are raised as they are."""
    error = state.result(raise_on_failure=False)
    if not isinstance(error, Exception):
        error = RuntimeError(state.message or f"ended as {state.name}")
    if not passing(error) and not isinstance(error, TableDamaged):
        raise error
    tries = 1 + (config.engine.retries if passing(error) else 0)
    return Quarantined(work.name, work.rows, tries, reason_of(error))


def passing(error: object) -> bool:
    """May another try end otherwise? Not with these values, nor on this disk."""
    return not isinstance(error, ValueError | DiskRefused | Stopped)


# --- tasks --------------------------------------------------------------------------------------


def finished(
    stage: ShardStage,
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    todo: Sequence[Work],
    tally: Tally,
) -> Iterator[Ended]:
    """Each shard's task when it has ended. This is the one place where shards become tasks."""
    if todo and on_cluster(config, stage.STAGE):
        from flows.runners import on_nodes  # Ray is loaded where a run asks for it

        yield from on_nodes(stage, config, upstream, todo, tally)
        return
    works = {work.name: work for work in todo}
    slot = slot_of(stage, config)

    def make(shard: str) -> Values:
        work = works[shard]
        with slot():
            made = stage.make(config, upstream, work, lambda rows: tally(work, rows))
        return [asdict(each) for each in made]

    one = task(name="make", task_run_name="make {shard}", **task_values(config))(make)
    most = config.engine.threads if stage.side_by_side(config) else 1
    try:
        yield from in_turn(one, todo) if most == 1 else in_threads(one, todo, most)
    finally:  # also when it is cancelled: threads end at their next rows
        tally.stopped.set()


def task_values(config: RunConfig) -> dict[str, Any]:
    """How a shard's task is run, here or on a node."""
    values = config.engine
    return {
        "cache_policy": NO_CACHE,
        "persist_result": False,
        "retries": values.retries,
        "retry_delay_seconds": [values.retry_seconds * 2**n for n in range(values.retries)] or None,
        "retry_condition_fn": may_pass,
    }


def may_pass(_task: object, _run: object, state: State[Values]) -> bool:
    return passing(state.result(raise_on_failure=False))


def in_turn(one: Task[[str], Values], todo: Sequence[Work]) -> Iterator[Ended]:
    """Called, not submitted: only the main thread hears a cancellation."""
    for work in todo:
        yield work, one(work.name, return_state=True)


def in_threads(one: Task[[str], Values], todo: Sequence[Work], most: int) -> Iterator[Ended]:
    """At most so many at once; another is submitted when one has ended, and never before."""
    ended: SimpleQueue[Work] = SimpleQueue()
    flying: dict[str, PrefectFuture[Values]] = {}
    waiting = iter(todo)

    def fly(works: Iterable[Work]) -> None:
        for work in works:

            def land(_: object, work: Work = work) -> None:
                ended.put(work)

            flying[work.name] = one.submit(work.name)
            flying[work.name].add_done_callback(land)

    fly(islice(waiting, most))
    while flying:
        work = ended.get()
        future = flying.pop(work.name)
        future.wait()
        fly(islice(waiting, 1))
        yield work, future.state


def slot_of(stage: ShardStage, config: RunConfig) -> Callable[[], Any]:
    """What a shard holds while it is made: a slot of the limit that the run names, or nothing."""
    name = config.engine.slots
    if name is None or stage.STAGE not in ON_DEVICE:
        return nullcontext
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound as error:
            raise ValueError(
                f"engine.slots: the Prefect server has no global concurrency limit {name!r}; make "
                f"it, as many slots as GPUs: prefect gcl create {name} --limit 1"
            ) from error

    @contextmanager
    def slot() -> Iterator[None]:
        with concurrency(name, occupy=1, strict=True):
            yield

    return slot
