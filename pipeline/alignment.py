"""DPO: the student learns to prefer the better picture of a pair.

In:    `preferences` rows that were kept, `text` states, the student's checkpoint.
Out:   checkpoints/dpo-<fingerprint>/final (averaged weights); beside it log and resumable state.
Rerun: nothing when it is there for these values and inputs; else goes on at the last saved step.

This file is light, for the flow; the training itself is `python -m pipeline.aligning`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import student
from pipeline.checkpoints import (
    CURVE,
    FINAL,
    SAMPLES,
    TrainingFolder,
    read_rows,
    subprocess_command,
    training_folder,
)
from pipeline.config import DpoConfig, LoopConfig, RunConfig, load_run
from pipeline.description import Description, Grid, Picture, Plot
from pipeline.pictures import steps_sheet
from pipeline.plots import Series, curve_plot, loss_plot, preference_plot, reward_plot
from pipeline.preferences import PREFERENCES
from pipeline.roots import LARGE, fetched
from pipeline.rounds import POLICY, count, name_of, policy_of
from pipeline.tables import Manifest, read

STAGE = "dpo"
VERSION = 2
OF_ROUNDS = {"rounds", "reference"}  # which round it is says what it starts from
OF_LOOKS = {"watch_every", "watch_captions", "keep"}
LATER = {
    "loss": "dpo",
    "anchor": 0.0,
    "weighting": "as_trained",
    "beta_end": None,
    "balance": "none",
    "draws_per_pair": 0,
    "reference_errors": "live",
    "max_winner_rise": None,
}
CHECKPOINT = "aligned"  # of the first round; later ones have their number behind it


def slice_of(config: DpoConfig) -> dict[str, object]:
    """The values that change the weights; how the training is run does not."""
    unread = {*LoopConfig.model_fields, *OF_ROUNDS}
    if config.keep == "last":
        unread |= OF_LOOKS
    values = config.model_dump(mode="json", exclude=unread)
    # Values that came later count where they say something: what is trained already stays found.
    return {name: x for name, x in values.items() if not (name in LATER and x == LATER[name])}


def folder(config: RunConfig, upstream: Mapping[str, Manifest]) -> TrainingFolder:
    assert config.dpo is not None and config.student is not None
    values = {**slice_of(config.dpo), "masking": config.student.masking.model_dump(mode="json")}
    inputs = {stage: upstream[stage].content for stage in ("student", "preferences")}
    if POLICY in upstream:
        inputs[POLICY] = upstream[POLICY].content
        values["reference"] = config.dpo.reference
    return training_folder(config, STAGE, VERSION, values, inputs)


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    return folder(config, upstream).find({checkpoint_of(config): FINAL})


def checkpoint_of(config: RunConfig) -> str:
    """`aligned`, `aligned-2`: the name of the last round's checkpoint."""
    return name_of(CHECKPOINT, count(config))


def reference_of(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[Manifest, str]:
    """What the policy is held against: the checkpoint it starts from, or the student."""
    assert config.dpo is not None
    if config.dpo.reference == "student":
        return upstream[student.STAGE], student.CHECKPOINT
    return policy_of(upstream)


def places(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[str, ...]:
    """What the stage writes, below the root."""
    return (folder(config, upstream).relative,)


def command(config_file: Path, upstream_file: Path) -> list[str]:
    """The process that trains; the flow starts it and reads its log."""
    dpo = load_run(config_file).dpo
    assert dpo is not None
    return subprocess_command("aligning", dpo, config_file, upstream_file)


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    """Pairs used, implicit accuracy, each side's error against the reference, held-out looks."""
    assert config.dpo is not None
    pairs = read(config.root, upstream["preferences"].snapshots[PREFERENCES.name], ["keep"])
    kept = sum(pairs["keep"].to_pylist())
    place = fetched(folder(config, upstream).kept, LARGE)
    log, looks = read_rows(place / "log.jsonl"), read_rows(place / CURVE)
    return Description(
        stage=STAGE,
        title="DPO",
        rows_in=kept,
        kept=kept,
        rejected=0,
        facts=_facts(config, upstream, manifest, log, looks),
        tables=_looks(looks),
        pictures=_sheet(place, looks),
        plots=(*_curves(log), *_scores(looks)),
    )


def _facts(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    manifest: Manifest,
    log: list[dict[str, Any]],
    looks: list[dict[str, Any]],
) -> dict[str, str]:
    values = config.dpo
    assert values is not None
    start, of_start = policy_of(upstream)
    reference, of_reference = reference_of(config, upstream)
    done = int(log[-1]["step"]) if log else values.steps
    stopped = "" if done == values.steps else f" of {values.steps}, stopped by max_winner_rise"
    facts = {
        "checkpoint": manifest.checkpoints[checkpoint_of(config)],
        "weights sha256": manifest.content,
        "loss": values.loss + (f" + {values.anchor:g} x winners' error" if values.anchor else ""),
        "beta": f"{values.beta:g}" + (f" to {values.beta_end:g}" if values.beta_end else ""),
        "steps": f"{done}{stopped}",
        "started from": start.checkpoints[of_start],
        "reference": reference.checkpoints[of_reference],
        "preferences": upstream["preferences"].content,
    }
    if values.keep == "best" and looks:
        best = best_of(looks)
        facts["kept"] = f"the weights after step {best['step']}, score {best['score']:.3f}"
    return facts


def best_of(looks: list[dict[str, Any]]) -> dict[str, Any]:
    """The look of the highest score, the earliest of equals."""
    return max(looks, key=lambda row: (row["score"], -row["step"]))


def _curves(log: list[dict[str, Any]]) -> tuple[Plot, ...]:
    def column(name: str) -> list[float]:
        return [row[name] for row in log]

    # An anchor is a hundred times what the preference is, and would hide its course.
    loss = "preference" if log and "preference" in log[0] else "loss"

    steps = column("step")
    if log and "accuracy" not in log[0]:  # SFT minds no loser
        return (Plot("Loss of the winners", loss_plot(steps, column("loss"))),)
    errors = [column(name) for name in ("accuracy", "winner_drift", "loser_drift")]
    plots = [
        Plot("DPO loss", loss_plot(steps, column(loss), label="preference loss")),
        Plot("Accuracy and errors", preference_plot(steps, *errors)),
    ]
    if log and "margin" in log[0]:
        rewards = reward_plot(steps, column("margin"), column("kl"))
        plots.append(Plot("Reward margin, and distance from the reference", rewards))
    return tuple(plots)


def _scores(looks: list[dict[str, Any]]) -> tuple[Plot, ...]:
    if len(looks) < 2:
        return ()
    steps = [row["step"] for row in looks]
    series = [
        Series(label, steps, [row[name] for row in looks])
        for label, name in (("mean score", "score"), ("share of good pictures", "good"))
    ]
    return (Plot("Held-out captions", curve_plot(series, "training step", "held-out captions")),)


def _looks(looks: list[dict[str, Any]]) -> tuple[Grid, ...]:
    if not looks:
        return ()
    rows = tuple((f"{r['step']:,}", f"{r['score']:.3f}", f"{r['good']:.3f}") for r in looks)
    return (Grid("Held-out captions by look", ("step", "mean score", "good pictures"), rows),)


def _sheet(place: Path, looks: list[dict[str, Any]]) -> tuple[Picture, ...]:
    """A row a look, the same captions and seeds each time."""
    strips = [(f"step {row['step']:,}", place / SAMPLES / row["strip"]) for row in looks]
    rows = [(label, student.cells_of(strip)) for label, strip in strips if strip.is_file()]
    if not rows:
        return ()
    return (Picture("Held-out samples by step", steps_sheet(looks[0]["prompts"], rows)),)
