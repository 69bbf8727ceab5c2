"""How any stage runs as a flow: reuse it or make it, then show it.

In:    a run's name, overrides by dotted path, the manifests above (or none: they are resolved).
Out:   where the stage's manifest is and this run's timing, as one small JSON value.
Rerun: the store decides. What `find` returns is reused whole and the flow ends as Cached;
       otherwise shards that are whole are reused and only the missing ones are made.

Prefect's result cache follows the store and never leads it: where the store has nothing, cached
results are refreshed.
"""

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from prefect import State, task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.artifacts import publish, show_quarantined
from flows.cancellation import cancellable
from flows.handed import Handed, above, hand_on
from flows.shards import ShardStage, make_shards
from pipeline import preflight, quarantine, rounds
from pipeline.config import RunConfig, load_run
from pipeline.credentials import mask_logs
from pipeline.description import (
    RECORD,
    Description,
    Timing,
    description_folder,
)
from pipeline.leases import leased
from pipeline.ledger import enter
from pipeline.quarantine import Quarantined, ShardsQuarantined, sentence
from pipeline.roots import root_of
from pipeline.spending import Meter, devices_of
from pipeline.tables import Manifest, Shard, Work, give_back_memory

Upstream: TypeAlias = Mapping[str, Manifest]
BEAR_GAPS = ("captions", "images", "verdicts")  # what follows them does without some shards


class Stage(Protocol):
    @property
    def STAGE(self) -> str: ...  # noqa: N802
    def find(self, config: RunConfig, upstream: Upstream) -> Manifest | None: ...
    def places(self, config: RunConfig, upstream: Upstream) -> tuple[str, ...]: ...
    def describe(
        self, config: RunConfig, upstream: Upstream, manifest: Manifest
    ) -> Description: ...


class TableStage(Stage, ShardStage, Protocol):
    def plan(self, config: RunConfig, upstream: Upstream) -> list[Work]: ...
    def commit(
        self, config: RunConfig, upstream: Upstream, shards: Sequence[Shard]
    ) -> Manifest: ...


@dataclass(frozen=True)
class Call:
    """One stage in one flow run: its values and what stands above it."""

    stage: Stage
    config: RunConfig
    upstream: Upstream
    meter: Meter

    def key(self, part: str) -> str:
        """The cache key, also the file name of the result: the stage, its values, its inputs."""
        sections = preflight.sections_up_to(self.stage.STAGE)
        blob = json.dumps(
            [
                part,
                self.config.model_dump(mode="json", include=set(sections)),
                {name: above.content for name, above in sorted(self.upstream.items())},
            ],
            sort_keys=True,
        )
        readable = re.sub(r"[^A-Za-z0-9.-]+", "-", part)[:48]
        digest = hashlib.sha256(blob.encode()).hexdigest()[:24]
        return f"{self.config.name}-{self.stage.STAGE}-{readable}-{digest}"


def run_stage(
    stage: Stage,
    work: Callable[[Call], tuple[Manifest, int | None]],
    run: str,
    overrides: Mapping[str, Any] | None,
    upstream: Mapping[str, Handed] | None,
    force: bool = False,
    round: int = 0,
) -> State[Handed]:
    """Reuse or make `stage`, publish what it is, and hand its manifest on.

    A stage of an on-policy round sees the run as this round does.
    """
    logging.getLogger("pipeline").setLevel(logging.INFO)
    mask_logs()
    started = time.monotonic()
    config = load_run(run, overrides)
    preflight.require(config, stage.STAGE)
    preflight.check_root(config)
    manifests = above(config, rounds.name_of(stage.STAGE, round), upstream)
    if round:
        config, manifests = rounds.at(config, round), rounds.seen_by(manifests, round)
    meter = Meter(root_of(config.root), stage.STAGE, devices_of(config, stage.STAGE))
    call = Call(stage, config, manifests, meter)
    with cancellable(), leased(root_of(config.root), stage.STAGE, config.name, held(call)):
        found = None if force else stage.find(config, call.upstream)
        if found and quarantine.lacking(root_of(config.root), stage.STAGE, found.content):
            found = None  # some shards are to be tried again
        if found is None:
            preflight.check(config, [stage.STAGE])
            manifest, made = work(call)
        else:
            manifest, made = reuse(call, found), 0
        description = describe(call, manifest, round)
        enter(config, {**call.upstream, stage.STAGE: manifest}, () if found else (stage.STAGE,))
    rows = sum(snapshot.rows for snapshot in manifest.snapshots.values()) or description.rows_in
    made = rows if made is None else made
    if made:
        meter.charge([manifest.content])  # what belongs to no single shard
    timing = Timing(made=made, reused=rows - made, seconds=time.monotonic() - started)
    publish(config.name, description, timing)
    give_back_memory()
    handed = hand_on(config, manifest, timing)
    return Completed(name="Cached" if found else "Completed", data=handed)


def held(call: Call) -> list[str]:
    """What the stage reads and what it writes, below the root."""
    read = [
        place
        for above in call.upstream.values()
        for place in (
            *(f"tables/{snapshot.table}.lance" for snapshot in above.snapshots.values()),
            *above.checkpoints.values(),
        )
    ]
    return [*read, *call.stage.places(call.config, call.upstream)]


def reuse(call: Call, found: Manifest) -> Manifest:
    """Nothing to do: one task, shown as Cached, that holds what the store has."""
    key = call.key("commit")
    value, _ = cached("commit", key, found.to_json)
    if value != found.to_json():  # an older result under the same key
        cached("commit", key, found.to_json, refresh=True)
    return found


def make_tables(call: Call) -> tuple[Manifest, int]:
    """Make the missing shards of a stage, a task each, then commit once.

    What could not be made is noted and shown; where the run does not allow it, the stage fails now,
    after all others are made, and the next run tries just those.
    """
    stage: TableStage = call.stage  # type: ignore[assignment]
    config, root = call.config, root_of(call.config.root)
    plan = stage.plan(config, call.upstream)
    outcome = make_shards(stage, config, call.upstream, plan, call.meter)
    allow(call, outcome.given_up)
    committed: list[Manifest] = []

    def commit() -> dict[str, Any]:
        quarantine.begin(root, stage.STAGE, outcome.given_up)
        committed.append(stage.commit(config, call.upstream, outcome.shards(plan)))
        quarantine.settle(root, stage.STAGE, committed[0].content, outcome.given_up)
        return committed[0].to_json()

    cached("commit", call.key("commit"), commit, refresh=True)
    return committed[0], outcome.made


def allow(call: Call, given_up: Sequence[Quarantined]) -> None:
    """ShardsQuarantined where a stage may not be committed without these."""
    if not given_up:
        return
    show_quarantined(f"{call.config.name}-{call.stage.STAGE}", given_up)
    said, most = sentence(call.stage.STAGE, given_up), call.config.engine.max_quarantined
    if call.stage.STAGE not in BEAR_GAPS:
        raise ShardsQuarantined(f"{said}. What follows needs all of them: run again")
    if len(given_up) > most:
        raise ShardsQuarantined(
            f"{said}. All others are made and kept: run again to try just these, or go on without "
            f"them by engine.max_quarantined (it is {most})"
        )


def cached(name: str, key: str, body: Callable[[], Any], refresh: bool = False) -> tuple[Any, bool]:
    """Run `body` as a task whose JSON result is kept under `key`; was it there already?"""
    run = task(
        name=name,
        cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda *_: key),
        persist_result=True,
        result_serializer="json",
        refresh_cache=refresh,
    )(body)
    state = run(return_state=True)
    return state.result(), state.name == "Cached"


def describe(call: Call, manifest: Manifest, round: int = 0) -> Description:
    """The saved description, or a new one from the tables."""
    folder = description_folder(root_of(call.config.root), call.stage.STAGE, manifest.content)
    lacking = quarantine.lacking(root_of(call.config.root), call.stage.STAGE, manifest.content)
    if (folder / RECORD).is_file() and not lacking:
        return Description.load(folder)
    config = preflight.seen_here(call.config)
    described = call.stage.describe(config, call.upstream, manifest).without(lacking)
    description = rounds.named(described, round)
    description.save(folder)
    return description


def run_name() -> str:
    """`dpo/tiny dpo.beta=2000`: the deployment and what differs from its named run."""
    given = flow_run.parameters
    changes = dict(given.get("overrides") or {})
    if given.get("beta") is not None:
        changes["dpo.beta"] = given["beta"]
    words = [f"{path}={value}" for path, value in changes.items()]
    if given.get("round", 1) > 1:
        words.insert(0, f"round {given['round']}")
    return " ".join([f"{flow_run.flow_name}/{Path(str(given.get('run'))).stem}", *words])[:200]
