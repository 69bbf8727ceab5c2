"""The student: its training, its preference pairs, its alignment.

In:    a run and overrides; the manifests of the stages before, or none.
Out:   each stage's manifest and timing (`flows.stages.Handed`).
Rerun: a finished checkpoint is reused; an unfinished one continues at its last saved step.

Training is a program of its own (`pipeline.pretraining`, `pipeline.aligning`), so that it can be
many processes and can die alone.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import yaml
from prefect import State, flow
from prefect.logging import get_run_logger
from pydantic import Field

from flows.artifacts import Progress
from flows.dataset import Above, Overrides
from flows.evaluation import evaluate
from flows.handed import Handed, above, hand_on
from flows.launch import launch
from flows.stages import Call, Stage, Upstream, cached, make_tables, run_name, run_stage
from pipeline import alignment as dpo_stage
from pipeline import preferences as preferences_stage
from pipeline import rounds
from pipeline import student as student_stage
from pipeline.checkpoints import TrainingFolder
from pipeline.config import RunConfig, load_run
from pipeline.description import write_whole
from pipeline.roots import near, root_of
from pipeline.tables import Manifest

_SENDER = re.compile(r"^(\x1b\[\d+m)?\(\w+ pid=\d+[^)]*\)(\x1b\[\d+m)? ")
Round = Annotated[int, Field(ge=1)]  # of on-policy alignment; `dpo.rounds` says how many


class TrainingStage(Stage, Protocol):
    def command(self, config_file: Path, upstream_file: Path) -> list[str]: ...
    def folder(self, config: RunConfig, upstream: Upstream) -> TrainingFolder: ...


@flow(name="student", flow_run_name=run_name, log_prints=True)
def student(run: str, overrides: Overrides = None, upstream: Above = None) -> State[Handed]:
    """Train the student through its resolutions."""
    return run_stage(student_stage, train, run, overrides, upstream)


@flow(name="preferences", flow_run_name=run_name, log_prints=True)
def preferences(
    run: str,
    overrides: Overrides = None,
    force: bool = False,
    upstream: Above = None,
    round: Round = 1,
) -> State[Handed]:
    """Pair better with worse pictures of the same caption, those of a round's own policy."""
    return run_stage(preferences_stage, make_tables, run, overrides, upstream, force, round)


@flow(name="dpo", flow_run_name=run_name, log_prints=True)
def dpo(
    run: str,
    beta: Annotated[float | None, Field(gt=0)] = None,
    overrides: Overrides = None,
    upstream: Above = None,
    round: Round = 1,
) -> State[Handed]:
    """Align with DPO; called alone, also go through what follows: later rounds, evaluation."""
    changes = dict(overrides or {})
    if beta is not None:
        changes["dpo.beta"] = beta
    state = run_stage(dpo_stage, train, run, changes, upstream, round=round)
    if upstream is None:
        config, name = load_run(run, changes), rounds.name_of("dpo", round)
        handed = {name: hand_on(config, m) for name, m in above(config, name, None).items()}
        handed[name] = cast(Handed, state.data)
        for later in range(round + 1, rounds.count(config) + 1):
            for stage in (preferences, dpo):
                given: Any = stage(run=run, overrides=changes, upstream=handed, round=later)
                handed[rounds.name_of(stage.name, later)] = given
        if config.evaluation is not None:  # a run may end with its alignment
            evaluate(run=run, overrides=changes, upstream=handed)
    return state


def train(call: Call) -> tuple[Manifest, None]:
    """Start the stage's program and relay what it says until it ends."""
    stage: TrainingStage = call.stage  # type: ignore[assignment]
    folder = near(root_of(call.config.root)) / "launches" / call.key("train")
    folder.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_dump(call.config.model_dump(mode="json"), sort_keys=False)
    write_whole(folder / "config.yaml", values.encode())
    manifests = {name: manifest.to_json() for name, manifest in call.upstream.items()}
    write_whole(folder / "upstream.json", json.dumps(manifests, indent=1).encode())
    command = stage.command(folder / "config.yaml", folder / "upstream.json")
    paid_for = [stage.folder(call.config, call.upstream).relative]
    relay = Relay(f"{call.config.name}-{stage.STAGE}", lambda: call.meter.charge(paid_for))
    # Called, not submitted: only the main thread hears a cancellation.
    try:
        cached("train", call.key("train"), lambda: launch(command, relay), refresh=True)
    finally:  # also when it is cancelled or fails: its time was spent
        call.meter.charge(paid_for)
    manifest = stage.find(call.config, call.upstream)
    if manifest is None:
        raise RuntimeError(f"{' '.join(command)} ended well but left no finished checkpoint")
    cached("commit", call.key("commit"), manifest.to_json, refresh=True)
    return manifest, None  # a training sees all of its rows


class Relay:
    """Turns a training program's lines into log lines and a progress artifact a phase.

    `made` is told at each row of the program's log.
    """

    def __init__(self, key: str, made: Callable[[], None]) -> None:
        self.key, self.made, self.last = key, made, 0
        self.progress: Progress | None = None

    def __call__(self, line: str) -> None:
        line = said(line)
        row: dict[str, Any] = json.loads(line) if line.startswith('{"') else {}
        if "step" not in row or "steps" not in row:
            if line.strip():
                get_run_logger().info(line)
            return
        if self.progress is None or row["step"] < self.last:
            self.progress = Progress(self.key, row["steps"], "steps")
        self.last = row["step"]
        self.made()
        self.progress(row["step"], f"loss {row['loss']:.4f}" if "loss" in row else "")


def said(line: str) -> str:
    """What a training's process printed, wherever it runs: Ray names the sender before it."""
    return _SENDER.sub("", line)
