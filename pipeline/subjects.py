"""Subjects of comparison: which captions, and the teacher's accepted pictures of them.

In:    `images`, `verdicts` and `features` of the run.
Out:   `Subject`s, chosen by a hash of the caption and a seed, so that the choice follows no order
       of the data; the teacher's pictures as contenders, with the mean of their latents.
Rerun: the same values choose the same captions.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
from PIL import Image

from pipeline.config import PreferencesConfig, RunConfig, VerdictsConfig
from pipeline.encoded_pictures import resized
from pipeline.encoders import autoencoder
from pipeline.feature_tables import name_of
from pipeline.images import png, seed_of
from pipeline.pair_builders import Contender
from pipeline.tables import Manifest, Snapshot, read, take
from pipeline.tasks import task_of
from pipeline.verdicts import build_judge, judged_images


@dataclass(frozen=True)
class TeacherPicture:
    """An accepted picture of the teacher, by where it is."""

    image_id: str
    image_row: int  # in the images table
    feature_row: int  # in the features table of the size
    score: float
    seed: int


@dataclass(frozen=True)
class Subject:
    """A caption with the teacher's accepted pictures of it: all of them where they are paired."""

    caption_id: str
    caption: str
    pictures: tuple[TeacherPicture, ...]


def values_of(config: RunConfig) -> PreferencesConfig:
    assert config.preferences is not None
    return config.preferences


def scorer_of(config: RunConfig) -> VerdictsConfig:
    """Whose scores order the pictures, and from where on one is good."""
    assert config.verdicts is not None
    return values_of(config).scorer or config.verdicts


def score_of(row: Mapping[str, float], weight: float = 0.5) -> float:
    """One figure of a verdict: how right by `weight`, how good by the rest."""
    return weight * row["alignment"] + (1 - weight) * row["quality"]


def chosen_first(caption_ids: Iterable[str], seed: int, number: int) -> list[str]:
    """So many captions, the same ones in whatever order they come."""
    return sorted(caption_ids, key=lambda caption_id: seed_of(caption_id, seed))[:number]


def chosen_captions(
    caption_ids: Iterable[str], texts: Mapping[str, str], values: PreferencesConfig, seed: int
) -> list[str]:
    """The captions that a round of this seed compares; `texts` are read for shares of tasks."""
    if not values.task_shares:
        return chosen_first(caption_ids, seed, values.num_captions)
    captions = {caption_id: texts[caption_id] for caption_id in caption_ids}
    return chosen_by_task(captions, seed, values.num_captions, values.task_shares)


def chosen_by_task(
    captions: Mapping[str, str], seed: int, number: int, shares: Mapping[str, float]
) -> list[str]:
    """So many captions, each task's share of them; what a task lacks the others make up.

    ValueError for tasks that no caption has.
    """
    tasks = {caption_id: task_of(caption) for caption_id, caption in captions.items()}
    unknown = sorted(set(shares) - set(tasks.values()))
    if unknown:
        raise ValueError(
            f"preferences.task_shares: no caption asks for {unknown}; there are "
            f"{sorted(set(tasks.values()))}"
        )
    total = sum(shares.values())
    left = {task: round(number * share / total) for task, share in shares.items()}
    first: list[str] = []
    rest: list[str] = []
    for caption_id in chosen_first(captions, seed, len(captions)):
        wanted = left.get(tasks[caption_id], 0) > 0
        (first if wanted else rest).append(caption_id)
        left[tasks[caption_id]] = left.get(tasks[caption_id], 0) - wanted
    return [*first, *rest][:number]


def subjects(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[Subject, ...]:
    values = values_of(config)
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
    encoded = read(root, features, ["image_id", "caption_id"], check=False)
    rows_of: dict[str, list[int]] = {}
    for row, caption_id in enumerate(encoded["caption_id"].to_pylist()):
        rows_of.setdefault(caption_id, []).append(row)
    most = None if "same_seed" in values.pairs else 1
    texts: dict[str, str] = {}
    if values.task_shares:  # of millions of rows, no reading that is not needed
        table = read(root, images, ["caption_id", "caption"], check=False)
        ids, captions = (table[name].to_pylist() for name in ("caption_id", "caption"))
        texts = dict(zip(ids, captions, strict=True))
    chosen = {
        caption_id: rows_of[caption_id][:most]
        for caption_id in chosen_captions(rows_of, texts, values, values.seed)
    }
    feature_rows = [row for rows in chosen.values() for row in rows]
    image_ids = encoded["image_id"].take(pa.array(feature_rows, pa.int64())).to_pylist()
    said = judged_images(root, thresholds, images, verdicts)
    places = {image_id: row for row, image_id in enumerate(said["image_id"].to_pylist())}
    image_rows = [places[image_id] for image_id in image_ids]
    drawn = take(root, images, image_rows, ["caption", "seed"]).to_pylist()
    scores = said.select(["alignment", "quality"]).take(pa.array(image_rows, pa.int64()))
    weight = values.alignment_weight
    found = zip(image_ids, image_rows, feature_rows, strict=True)
    pictures = [
        (row["caption"], TeacherPicture(*place, score_of(score, weight), row["seed"]))
        for place, score, row in zip(found, scores.to_pylist(), drawn, strict=True)
    ]
    return tuple(_in_turn(chosen, pictures))


def _in_turn(
    chosen: Mapping[str, Sequence[int]], pictures: Sequence[tuple[str, TeacherPicture]]
) -> Iterable[Subject]:
    first = 0
    for caption_id, rows in chosen.items():
        own = pictures[first : first + len(rows)]
        yield Subject(caption_id, own[0][0], tuple(picture for _, picture in own))
        first += len(rows)


def teachers(
    config: RunConfig, upstream: Mapping[str, Manifest], part: Sequence[Subject]
) -> dict[str, list[Contender]]:
    """The teacher's pictures by caption, at the size of the samples."""
    values = values_of(config)
    places = [(subject, picture) for subject in part for picture in subject.pictures]
    images = upstream["images"].snapshots["images"]
    rows = [picture.image_row for _, picture in places]
    pictures = [
        Image.fromarray(resized(image, values.image_size))
        for image in take(config.root, images, rows, ["image"])["image"].to_pylist()
    ]
    scores = [picture.score for _, picture in places]
    if values.scorer is not None:  # another judge's scores are on another scale
        verdicts = build_judge(values.scorer.judge, config.root).judge(
            pictures, [subject.caption for subject, _ in places]
        )
        said = [{"alignment": v.alignment, "quality": v.quality} for v in verdicts]
        scores = [score_of(row, values.alignment_weight) for row in said]
    latents = _means(config, upstream, [picture.feature_row for _, picture in places])
    found: dict[str, list[Contender]] = {}
    for place, picture, score, latent in zip(places, pictures, scores, latents, strict=True):
        own = found.setdefault(place[0].caption_id, [])
        origin = f"teacher {len(own)}" if own else "teacher"
        own.append(Contender(origin, latent, png(picture), score, True, place[1].seed))
    return found


def _means(
    config: RunConfig, upstream: Mapping[str, Manifest], feature_rows: Sequence[int]
) -> list[bytes]:
    """The mean of the posterior, as the student's latents are."""
    from pipeline.batches import mean_latents

    values = values_of(config)
    assert config.features is not None and config.student is not None
    features = upstream["features"].snapshots[name_of(values.image_size)]
    kind = config.features.latents
    stored = take(config.root, features, feature_rows, [kind])[kind]
    cells = values.image_size // config.student.model.latent_stride
    vae = autoencoder(config.features, config.device)
    latents = mean_latents(stored, kind, cells, vae.scale, vae.shift).half().numpy()
    return [latent.tobytes() for latent in latents]
