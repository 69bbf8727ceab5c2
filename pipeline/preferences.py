"""Preferences: two pictures of one caption, the better one first.

In:    `features`, `images` and `verdicts` for the teacher's side, the student's checkpoint.
Out:   `samples`, what the student drew for chosen captions, judged; `preferences`, the pairs. A
       comparison that gives no pair (a tie, a good sample) is a row with its reason.
Rerun: draws only samples that are new for this student; another margin or threshold pairs the
       same samples again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from pipeline import judges
from pipeline.captions import count, spread
from pipeline.config import PreferencesConfig, RunConfig, VerdictsConfig
from pipeline.description import Description, Grid, Picture
from pipeline.drawing import checkpoint_folder, draw, encode
from pipeline.encoded_pictures import resized
from pipeline.encoders import autoencoder, autoencoder_identity, text_encoder_identity
from pipeline.feature_tables import name_of
from pipeline.images import png, seed_of
from pipeline.judges import Judge
from pipeline.pictures import Cell, side_by_side
from pipeline.tables import (
    NO_COMPRESSION,
    Manifest,
    Shard,
    Snapshot,
    Table,
    TableFolder,
    Work,
    identifier,
    read,
    take,
)
from pipeline.verdicts import accepted, build_judge, judged_images, reasons

STAGE = "preferences"
TEACHER_OVER_STUDENT, BEST_OVER_WORST = "teacher_over_student", "best_over_worst"
GOOD_SAMPLE, TIE = "the sample is good", "tie"
SHOWN = 12

SAMPLES = Table(
    name="samples",
    version=2,
    schema=pa.schema(
        [
            pa.field("caption_id", pa.string(), False),
            pa.field("caption", pa.string(), False),
            pa.field("sample_index", pa.int32(), False),
            pa.field("seed", pa.int64(), False),
            # float16 bits of the normalised latents (c, h, w) that the VAE reads from the picture
            pa.field("latents", pa.large_binary(), False, NO_COMPRESSION),
            pa.field("image", pa.large_binary(), False, NO_COMPRESSION),  # PNG
            pa.field("alignment", pa.float32(), False),
            pa.field("quality", pa.float32(), False),
            pa.field("words", pa.string(), False),
            pa.field("reason", pa.string(), False),  # the judge's category
        ]
    ),
)

PREFERENCES = Table(
    name="preferences",
    version=1,
    schema=pa.schema(
        [
            pa.field("pair_id", pa.string(), False),
            pa.field("caption_id", pa.string(), False),
            pa.field("caption", pa.string(), False),
            pa.field("kind", pa.string(), False),  # which comparison
            # float16 bits of the normalised latents (c, h, w); null where there is no pair
            pa.field("winner", pa.large_binary(), True, NO_COMPRESSION),
            pa.field("loser", pa.large_binary(), True, NO_COMPRESSION),
            pa.field("winner_image", pa.large_binary(), True, NO_COMPRESSION),  # PNG
            pa.field("loser_image", pa.large_binary(), True, NO_COMPRESSION),
            pa.field("winner_from", pa.string(), False),
            pa.field("loser_from", pa.string(), False),
            pa.field("winner_score", pa.float32(), False),
            pa.field("loser_score", pa.float32(), False),
            pa.field("keep", pa.bool_(), False),
            pa.field("reason", pa.string(), False),  # "" when kept
        ]
    ),
)


@dataclass(frozen=True)
class Subject:
    """A caption with the teacher's accepted picture of it."""

    caption_id: str
    caption: str
    image_id: str
    image_row: int  # in the images table
    feature_row: int  # in the features table of the size
    score: float


@dataclass(frozen=True)
class Contender:
    """One picture of a comparison."""

    origin: str
    latents: bytes
    image: bytes
    score: float
    good: bool


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    inputs = _inputs(config, upstream)
    found = {name: folder.find(inputs) for name, folder in _folders(config).items()}
    whole = {name: snapshot for name, snapshot in found.items() if snapshot is not None}
    return Manifest.of(STAGE, whole) if len(whole) == len(found) else None


def plan(config: RunConfig, upstream: Mapping[str, Manifest]) -> list[Work]:
    values, folder = _values(config), _folders(config)["samples"]
    chosen = subjects(config, upstream)
    works = []
    for first in range(0, len(chosen), values.rows_per_shard):
        part = chosen[first : first + values.rows_per_shard]
        name = samples_name(folder, upstream, part, values)
        works.append(Work(name, (), first, len(part) * values.samples_per_caption))
    return works


def make(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    values, folders = _values(config), _folders(config)
    chosen = subjects(config, upstream)
    part = chosen[work.first : work.first + work.rows // values.samples_per_caption]
    rows = draw_samples(config, upstream, part, progress)
    samples = folders["samples"].write_shard(work.name, rows)
    features = upstream["features"].snapshots[name_of(values.image_size)]
    pairs = identifier(
        folders["preferences"].fingerprint,
        samples.sha256,
        [subject.image_id for subject in part],
        features.content,
    )

    def compared() -> Iterator[pa.RecordBatch]:
        table = folders["samples"].read_shard(samples)
        yield compare(config, upstream, part, table)
        progress(work.rows)

    return [samples, folders["preferences"].write_shard(pairs, compared())]


def commit(
    config: RunConfig, upstream: Mapping[str, Manifest], shards: Sequence[Shard]
) -> Manifest:
    inputs = _inputs(config, upstream)
    return Manifest.of(
        STAGE,
        {
            name: folder.commit([s for s in shards if s.table == folder.name], inputs)
            for name, folder in _folders(config).items()
        },
    )


def _values(config: RunConfig) -> PreferencesConfig:
    assert config.preferences is not None
    return config.preferences


def _folders(config: RunConfig) -> dict[str, TableFolder]:
    values = _values(config)
    assert config.features is not None and config.verdicts is not None
    drawn = values.model_dump(mode="json", include={"image_size", "sampling", "seed"})
    drawn |= {
        "autoencoder": autoencoder_identity(config.features),
        "text encoder": text_encoder_identity(config.features),
        "text length": config.features.text_length,
        "judge": judges.identity(config.verdicts.judge),
    }
    compared = values.model_dump(mode="json", include={"pairs", "min_margin"})
    compared |= config.verdicts.model_dump(mode="json", include={"min_alignment", "min_quality"})
    return {
        "samples": TableFolder(config.root, SAMPLES, drawn),
        "preferences": TableFolder(config.root, PREFERENCES, compared),
    }


def _inputs(config: RunConfig, upstream: Mapping[str, Manifest]) -> str:
    above = [upstream[stage].content for stage in ("images", "verdicts", "features", "student")]
    size = {"num_captions", "samples_per_caption", "rows_per_shard"}
    drawn = _folders(config)["samples"].fingerprint
    return identifier(above, drawn, _values(config).model_dump(mode="json", include=size))


# --- which captions -----------------------------------------------------------------------------


def subjects(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[Subject, ...]:
    values = _values(config)
    assert config.verdicts is not None
    images, verdicts = (upstream[name].snapshots[name] for name in ("images", "verdicts"))
    features = upstream["features"].snapshots[name_of(values.image_size)]
    return _subjects(config.root, values, config.verdicts, images, verdicts, features)


@lru_cache(maxsize=2)
def _subjects(
    root: str,
    values: PreferencesConfig,
    thresholds: VerdictsConfig,
    images: Snapshot,
    verdicts: Snapshot,
    features: Snapshot,
) -> tuple[Subject, ...]:
    """Chosen by a hash of the caption, so that the choice follows no order of the data."""
    encoded = read(root, features, ["image_id", "caption_id"], check=False)
    first_rows: dict[str, int] = {}
    for row, caption_id in enumerate(encoded["caption_id"].to_pylist()):
        first_rows.setdefault(caption_id, row)
    chosen = sorted(first_rows, key=lambda caption_id: seed_of(caption_id, values.seed))
    feature_rows = [first_rows[caption_id] for caption_id in chosen[: values.num_captions]]
    image_ids = encoded["image_id"].take(pa.array(feature_rows, pa.int64())).to_pylist()
    said = judged_images(root, thresholds, images, verdicts)
    places = {image_id: row for row, image_id in enumerate(said["image_id"].to_pylist())}
    rows = [places[image_id] for image_id in image_ids]
    captions = take(root, images, rows, ["caption"])["caption"].to_pylist()
    scores = said.select(["alignment", "quality"]).take(pa.array(rows, pa.int64())).to_pylist()
    return tuple(
        Subject(caption_id, caption, image_id, row, feature_row, score_of(score))
        for caption_id, caption, image_id, row, feature_row, score in zip(
            chosen, captions, image_ids, rows, feature_rows, scores, strict=False
        )
    )


def score_of(row: Mapping[str, float]) -> float:
    """One figure of a verdict: how right and how good, equally."""
    return (row["alignment"] + row["quality"]) / 2


# --- samples ------------------------------------------------------------------------------------


def samples_name(
    folder: TableFolder,
    upstream: Mapping[str, Manifest],
    part: Sequence[Subject],
    values: PreferencesConfig,
) -> str:
    captions = [subject.caption for subject in part]
    student = upstream["student"].content
    return identifier(folder.fingerprint, student, captions, values.samples_per_caption)


def draw_samples(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    part: Sequence[Subject],
    progress: Callable[[int], None],
) -> Iterator[pa.RecordBatch]:
    """The student's pictures of these captions, each with the judge's verdict."""
    values = _values(config)
    assert config.verdicts is not None
    judge = build_judge(config.verdicts.judge, config.root)
    orders = [
        (subject, number, seed_of(subject.caption_id, number, values.seed))
        for subject in part
        for number in range(values.samples_per_caption)
    ]
    drawn = draw(
        config,
        checkpoint_folder(config, upstream["student"], "student"),
        [subject.caption for subject, _, _ in orders],
        [seed for _, _, seed in orders],
        image_size=values.image_size,
        sampling=values.sampling,
    )
    done = 0
    for images in drawn:
        # Not the latents that were drawn: those differ from a teacher's in more than what they
        # show, and DPO learns the shortcut instead of the caption.
        latents = encode(config, images)
        yield _sample_rows(judge, orders[done : done + len(images)], images, latents)
        done += len(images)
        progress(done)


def _sample_rows(
    judge: Judge,
    orders: Sequence[tuple[Subject, int, int]],
    images: Sequence[Image.Image],
    latents: NDArray[np.float16],
) -> pa.RecordBatch:
    captions = [subject.caption for subject, _, _ in orders]
    verdicts = judge.judge(images, captions)
    columns = {
        "caption_id": [subject.caption_id for subject, _, _ in orders],
        "caption": captions,
        "sample_index": [number for _, number, _ in orders],
        "seed": [seed for _, _, seed in orders],
        "latents": [one.tobytes() for one in latents],
        "image": [png(image) for image in images],
        "alignment": [verdict.alignment for verdict in verdicts],
        "quality": [verdict.quality for verdict in verdicts],
        "words": [verdict.words for verdict in verdicts],
        "reason": [verdict.reason for verdict in verdicts],
    }
    return pa.RecordBatch.from_pydict(columns, schema=SAMPLES.schema)


# --- pairs --------------------------------------------------------------------------------------


def compare(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    part: Sequence[Subject],
    samples: pa.Table,
) -> pa.RecordBatch:
    """All comparisons of these captions, pairs and rejected ones."""
    values = _values(config)
    teachers = _teachers(config, upstream, part)
    students = _students(config, samples)
    rows: list[dict[str, object]] = []
    for subject in part:
        drawn = students[subject.caption_id]
        for kind in values.pairs:
            if kind == TEACHER_OVER_STUDENT:
                teacher = teachers[subject.caption_id]
                rows += [_over_student(subject, teacher, sample) for sample in drawn]
            else:
                rows.append(_best_over_worst(subject, drawn, values.min_margin))
    return pa.RecordBatch.from_pylist(rows, schema=PREFERENCES.schema)


def _over_student(subject: Subject, teacher: Contender, sample: Contender) -> dict[str, object]:
    reason = GOOD_SAMPLE if sample.good else ""
    return _pair(subject, TEACHER_OVER_STUDENT, teacher, sample, reason)


def _best_over_worst(
    subject: Subject, drawn: Sequence[Contender], min_margin: float
) -> dict[str, object]:
    best = max(drawn, key=lambda sample: sample.score)
    worst = min(drawn, key=lambda sample: sample.score)
    margin = best.score - worst.score
    reason = "" if margin > 0 and margin >= min_margin else TIE
    return _pair(subject, BEST_OVER_WORST, best, worst, reason)


def _pair(
    subject: Subject, kind: str, winner: Contender, loser: Contender, reason: str
) -> dict[str, object]:
    """A row; only a pair to learn from carries its latents."""
    return {
        "pair_id": identifier(subject.image_id, kind, winner.origin, loser.origin),
        "caption_id": subject.caption_id,
        "caption": subject.caption,
        "kind": kind,
        "winner": None if reason else winner.latents,
        "loser": None if reason else loser.latents,
        "winner_image": winner.image,
        "loser_image": loser.image,
        "winner_from": winner.origin,
        "loser_from": loser.origin,
        "winner_score": winner.score,
        "loser_score": loser.score,
        "keep": not reason,
        "reason": reason,
    }


def _students(config: RunConfig, samples: pa.Table) -> dict[str, list[Contender]]:
    assert config.verdicts is not None
    contenders: dict[str, list[Contender]] = {}
    good = accepted(config.verdicts, samples).tolist()
    for row, fine in zip(samples.to_pylist(), good, strict=True):
        origin = f"student sample {row['sample_index']}"
        contender = Contender(origin, row["latents"], row["image"], score_of(row), fine)
        contenders.setdefault(row["caption_id"], []).append(contender)
    return contenders


def _teachers(
    config: RunConfig, upstream: Mapping[str, Manifest], part: Sequence[Subject]
) -> dict[str, Contender]:
    """The teacher's pictures at the size of the samples, with the mean of their latents."""
    from pipeline.batches import mean_latents

    values = _values(config)
    assert config.features is not None and config.student is not None
    features, kind = (
        upstream["features"].snapshots[name_of(values.image_size)],
        config.features.latents,
    )
    stored = take(config.root, features, [s.feature_row for s in part], [kind])[kind]
    images = upstream["images"].snapshots["images"]
    pictures = take(config.root, images, [s.image_row for s in part], ["image"])["image"]
    cells = values.image_size // config.student.model.latent_stride
    vae = autoencoder(config.features, config.device)
    latents = mean_latents(stored, kind, cells, vae.scale, vae.shift).half().numpy()
    return {
        subject.caption_id: Contender(
            "teacher",
            latent.tobytes(),
            png(Image.fromarray(resized(picture, values.image_size))),
            subject.score,
            True,
        )
        for subject, latent, picture in zip(part, latents, pictures.to_pylist(), strict=True)
    }


# --- what a person sees -------------------------------------------------------------------------


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    snapshots = manifest.snapshots
    names = ["kind", "keep", "reason", "winner_score", "loser_score"]
    table = read(config.root, snapshots["preferences"], names, check=False)
    rejected = [reason for reason in table["reason"].to_pylist() if reason]
    verdicts = config.verdicts
    assert verdicts is not None
    return Description(
        stage=STAGE,
        title="Preferences",
        rows_in=len(table),
        kept=len(table) - len(rejected),
        rejected=len(rejected),
        reasons=count(rejected),
        facts={
            **{name: snapshot.label for name, snapshot in snapshots.items()},
            "content": manifest.content,
            "student": upstream["student"].checkpoints["student"],
            "student's weights": upstream["student"].content,
            "judge": str(verdicts.judge.kind),
            "a good sample": f"alignment {verdicts.min_alignment:g}, "
            f"quality {verdicts.min_quality:g}",
            "least margin": f"{_values(config).min_margin:g}",
        },
        tables=(_by_kind(table), _samples_grid(config, snapshots["samples"])),
        pictures=_sheets(config, snapshots["preferences"], table),
    )


def _by_kind(table: pa.Table) -> Grid:
    cells = []
    for kind in (TEACHER_OVER_STUDENT, BEST_OVER_WORST):
        own = table.filter(pc.equal(table["kind"], kind))
        pairs = own.filter(own["keep"])
        if len(own):
            scores = [
                f"{np.mean(pairs[name].to_numpy()):.3f}" if len(pairs) else "-"
                for name in ("winner_score", "loser_score")
            ]
            cells.append((kind.replace("_", " "), f"{len(own):,}", f"{len(pairs):,}", *scores))
    header = ("comparison", "compared", "pairs", "mean winner score", "mean loser score")
    return Grid("Pairs by comparison", header, tuple(cells))


def _samples_grid(config: RunConfig, snapshot: Snapshot) -> Grid:
    """What the judge said of the student's samples."""
    assert config.verdicts is not None
    table = read(config.root, snapshot, ["alignment", "quality", "reason"], check=False)
    why = [reason or "accepted" for reason in reasons(config.verdicts, table)]
    cells = tuple(
        (reason, f"{rows:,}", f"{rows / len(why):.1%}") for reason, rows in count(why).items()
    )
    return Grid("The student's samples, judged", ("verdict", "samples", "share"), cells)


def _sheets(config: RunConfig, snapshot: Snapshot, table: pa.Table) -> tuple[Picture, ...]:
    kept = np.flatnonzero(table["keep"].to_numpy())
    if not len(kept):
        return ()
    chosen = [int(kept[index]) for index in spread(len(kept), SHOWN)]
    names = ["caption", "winner_image", "loser_image", "winner_from", "loser_from"]
    names += ["winner_score", "loser_score"]
    rows = take(config.root, snapshot, chosen, names).to_pylist()
    sides = [
        [Cell(row[f"{side}_image"], row["caption"], _note(row, side), good) for row in rows]
        for side, good in (("winner", True), ("loser", False))
    ]
    return (Picture("Pairs", side_by_side("Better", sides[0], "Worse", sides[1])),)


def _note(row: Mapping[str, Any], side: str) -> str:
    return f"{row[f'{side}_from']}: {row[f'{side}_score']:.2f}"
