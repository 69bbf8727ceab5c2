"""How many bytes each stage is expected to leave on disk, and how many it left.

In:    a `RunConfig` with the rows expected; or the manifest of a stage that is made.
Out:   bytes by stage; None where the rows are not known. Reports, logs and Lance's own small files
       are not counted: together they are less than a hundredth.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lightgen_model.flops import parameter_count
from pipeline import rounds
from pipeline.config import LoopConfig, RunConfig, ShapesTeacher
from pipeline.expected import Expected, encoded
from pipeline.storage import BITS_PER_PIXEL, Means, bytes_per_row
from pipeline.tables import Manifest

# Of the embedded world, measured on the tiny run: flat pictures, short captions, few words.
SHAPES = Means(
    short_share=1, short_tokens=11.5, short_bytes=30, answer_bytes=4, bits_per_pixel=0.65
)
STUDENTS_BITS = 10.0  # a pixel of what its student draws: noise does not compress
WEIGHT = 4  # bytes: weights are kept in float32
STATE = 4 * WEIGHT  # weights, their average, two moments of the optimizer
ROW_OF_SCORES = 150  # prompt, ids and words; the picture comes on top


def expected_bytes(config: RunConfig, rows: Expected) -> dict[str, float | None]:
    """By stage, of the stages that the run has."""
    shapes = config.images is not None and isinstance(config.images.teacher, ShapesTeacher)
    means = SHAPES if shapes else Means()
    of_student = replace(means, bits_per_pixel=STUDENTS_BITS) if shapes else means
    each, drawn = bytes_per_row(config, means), bytes_per_row(config, of_student)
    found: dict[str, float | None] = {"captions": _times(rows.captions, each["captions"])}
    if config.images:
        found["images"] = _by_size(rows.pictures, each)
    if config.verdicts:
        pictures = None if rows.pictures is None else sum(rows.pictures.values())
        found["verdicts"] = _times(pictures, each["verdicts"])
    if config.features:
        found["features"] = _features(config, rows, each)
    if config.student:
        found["student"] = float(student_bytes(config))
    if config.preferences:
        # Of a comparison that gives no pair only the pictures are kept, not the latents: the bound.
        found["preferences"] = (
            rows.samples * drawn["samples"] + rows.comparisons * drawn["preferences"]
        )
    if config.dpo and config.student:
        weights = parameter_count(config.student.model.drawn)
        kept = _states(config.dpo.steps, config.dpo)
        found["dpo"] = float(weights * (WEIGHT + STATE * kept)) * rounds.count(config)
    if config.evaluation:
        bits = of_student.bits_per_pixel or BITS_PER_PIXEL["png"]
        row = bits / 8 * config.evaluation.image_size**2 + ROW_OF_SCORES
        found["evaluate"] = _times(rows.scored, row)
    return found


def bytes_on_disk(root: Path, manifest: Manifest) -> int:
    """Of the data files of a stage's tables, and of its checkpoint's folder with its states."""
    tables = sum(shard.size for table in manifest.snapshots.values() for shard in table.shards)
    folders = {(root / place).parent for place in manifest.checkpoints.values()}
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return tables + sum(path.stat().st_size for path in files)


def student_bytes(config: RunConfig) -> int:
    """Untrained weights, final ones raw and averaged, and the states that stay of each phase."""
    assert config.student is not None
    states = sum(_states(phase.steps, config.student) for phase in config.student.trained)
    return parameter_count(config.student.model) * (3 * WEIGHT + STATE * states)


def _states(steps: int, loop: LoopConfig) -> int:
    """Resumable states that stay of a training: the newest, and those kept for good."""
    saved = sorted({*range(loop.checkpoint_every, steps + 1, loop.checkpoint_every), steps})
    kept = set(saved[-loop.keep_last :])
    if loop.keep_every:
        kept |= {step for step in saved if step % loop.keep_every == 0}
    return len(kept)


def _times(rows: float | None, each: float) -> float | None:
    return None if rows is None else rows * each


def _by_size(rows: Mapping[int, float] | None, each: Mapping[str, float]) -> float | None:
    if rows is None:
        return None
    return sum(number * each[f"images_{size}"] for size, number in rows.items())


def _features(config: RunConfig, rows: Expected, each: Mapping[str, float]) -> float | None:
    assert config.features is not None
    if rows.texts is None or rows.accepted is None:
        return None
    total = rows.texts * each["text"]
    for size in config.features.image_sizes:
        pictures = encoded(config, rows.accepted, size)
        total += pictures * (each[f"features_{size}"] + each.get(f"alignment_{size}", 0.0))
    return total
