"""The program that runs DPO: `python -m pipeline.aligning --config F --upstream F`.

In:    the run as YAML, and the manifests of the stages before as JSON.
Out:   the checkpoint folder that `pipeline.alignment` describes.
Rerun: goes on from the last saved step, bit for bit.

Pairs are checked before anything is trained (`pipeline.pairs`); a step is `pipeline.aligning_step`.
"""

from collections.abc import Mapping
from functools import partial

import torch
from accelerate import Accelerator

from lightgen_model import checkpoint
from pipeline import alignment, held_out
from pipeline.aligning_step import DpoStep, LiveReference, MeasuredReference, Reference, errors_of
from pipeline.batches import Rows, TableRows, TextStates, position_of
from pipeline.checkpoints import TrainingFolder
from pipeline.config import RunConfig
from pipeline.drawing import checkpoint_folder
from pipeline.feature_tables import text_columns
from pipeline.held_out import HeldOut
from pipeline.pairs import COLUMNS, Pairs, check_latents
from pipeline.parallel import Weights, recompute_activations
from pipeline.preferences import PREFERENCES
from pipeline.prefetch import prefetched
from pipeline.pretraining import build_accelerator, program
from pipeline.reference_errors import ErrorTable
from pipeline.roots import bring, root_of
from pipeline.rounds import policy_of
from pipeline.starting import origins_of, save_weights
from pipeline.tables import Manifest
from pipeline.training import Schedule, fit


def align_student(config: RunConfig, upstream: Mapping[str, Manifest]) -> None:
    values, student = config.dpo, config.student
    assert values is not None and student is not None
    torch.set_float32_matmul_precision(student.matmul_precision)
    place = alignment.folder(config, upstream)
    bring(place.path)
    accelerator = build_accelerator(config, student.precision, values, place)
    pairs = load_pairs(config, upstream, accelerator)
    step = build_step(config, upstream, pairs, accelerator)
    # Eval mode: dropout off, so that policy and reference agree at the first step.
    start = checkpoint_folder(config, *policy_of(upstream))
    policy = checkpoint.load(start, named(accelerator.device), expected=student.model.drawn)
    policy.requires_grad_(True)
    if values.checkpoint_activations:
        recompute_activations(policy)
    looker = None
    if values.watch_every and accelerator.is_main_process:
        looker = HeldOut.build(config, upstream, place.path, named(accelerator.device))
    schedule = Schedule(
        values.steps,
        values.batch_size,
        values.watch_every,
        seed=values.seed,
        position=lambda step: position_of(pairs.source, values.seed, values.batch_size),
        stop=partial(too_far, values.max_winner_rise),
    )
    with prefetched(step.prepare, step.expect, values, values.steps, accelerator) as step.ready:
        average = fit(
            policy,
            step,
            values.optimizer,
            values,
            schedule,
            place.path,
            accelerator=accelerator,
            watch=looker.look if looker else None,
            label="DPO",
        )
    if accelerator.is_main_process:
        finish(config, upstream, place, average)
    accelerator.end_training()


def load_pairs(
    config: RunConfig, upstream: Mapping[str, Manifest], accelerator: Accelerator
) -> Pairs:
    """The run's pairs, each of them checked by one process."""
    values, student, preferences = config.dpo, config.student, config.preferences
    assert values is not None and student is not None and preferences is not None
    assert config.features is not None
    root, gib, main = root_of(config.root), values.table_memory_gib, accelerator.is_main_process
    snapshot, text = (
        upstream[stage].snapshots[name]
        for stage, name in (("preferences", PREFERENCES.name), ("features", "text"))
    )
    cells = preferences.image_size // student.model.latent_stride
    pairs = Pairs.load(
        TableRows.open(root, snapshot, COLUMNS, gib),
        TextStates(
            TableRows.open(root, text, text_columns(config.features), gib),
            pinned=config.device == "cuda",
        ),
        shape=(student.model.latent_channels, cells, cells),
        balance=values.balance,
        check=main,
    )
    if main:
        check_latents(config, snapshot, pairs)
    return pairs


def build_step(
    config: RunConfig, upstream: Mapping[str, Manifest], pairs: Pairs, accelerator: Accelerator
) -> DpoStep:
    """A step with its reference: a second network, or what one said before."""
    values, student = config.dpo, config.student
    assert values is not None and student is not None
    whose = alignment.reference_of(config, upstream)
    folder, device = checkpoint_folder(config, *whose), accelerator.device
    network = checkpoint.load(folder, named(device), expected=student.model.drawn)
    live = LiveReference(network, values.weighting)
    equal = folder == checkpoint_folder(config, *policy_of(upstream))
    step = DpoStep(values, student.masking, student.model.drawn, pairs, live, equal)
    if values.reference_errors == "live":
        return step

    @torch.no_grad()
    def measure(rows: Rows, number: int) -> tuple[list[float], list[float]]:
        inputs = step.of_pairs(rows, number, device)
        with accelerator.autocast():
            errors = errors_of(network, inputs, values.weighting, network.config.head)
        winner, loser = errors.float().chunk(2)
        return winner.tolist(), loser.tolist()

    table = ErrorTable.of(
        config.root,
        [
            student.masking.model_dump(mode="json"),
            student.model.head.model_dump(mode="json"),
            values.seed,
            values.weighting,
            student.precision,
        ],
        f"{whose[0].content} {upstream['preferences'].content}",
        pairs.pair_ids,
        values.draws_per_pair,
        values.batch_size // values.parts,
    )
    reference: Reference = MeasuredReference(table.measured(measure, accelerator))
    return DpoStep(values, student.masking, student.model.drawn, pairs, reference, equal)


def named(device: torch.device) -> str:
    """A device as weights files know it: of several processes' CPUs there is one."""
    return str(device) if device.type == "cuda" else device.type


def too_far(limit: float | None, row: Mapping[str, float]) -> str:
    """Why to stop: the winners' error has risen by more than `limit` of the reference's."""
    if limit is None:
        return ""
    rise = row["winner_drift"] / (row["winner_error"] - row["winner_drift"])
    if rise <= limit:
        return ""
    return (
        f"the winners' error is {rise:.1%} above the reference's, dpo.max_winner_rise {limit:.1%}"
    )


def finish(
    config: RunConfig, upstream: Mapping[str, Manifest], place: TrainingFolder, last: Weights
) -> None:
    """Publish the last weights or the best ones."""
    values, student = config.dpo, config.student
    assert values is not None and student is not None
    about: dict[str, object] = {
        "stage": "dpo",
        "beta": values.beta,
        "round": values.rounds,
        "student": upstream["student"].content,
        "start": policy_of(upstream)[0].content,
        "preferences": upstream["preferences"].content,
        "run": config.name,
        **origins_of(config),
    }
    weights = last
    if values.keep == "best":
        about["step"], weights = held_out.best_weights(place.path)
    save_weights(place.final, student.model.drawn, weights, about)
    place.finish(config)
    held_out.drop_weights(place.path)


if __name__ == "__main__":
    program(align_student, alignment.folder, "Align the student.")
