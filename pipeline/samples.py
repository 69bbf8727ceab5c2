"""Samples: what the policy draws for chosen captions, judged.

In:    captions with their seeds, the checkpoint that draws, the scorer.
Out:   `samples`, one row a picture, with the latents that the VAE reads from it.
Rerun: a shard is named by the weights and captions that made it; a whole one is kept.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipeline import judges
from pipeline.config import RunConfig
from pipeline.drawing import checkpoint_folder, draw, encode
from pipeline.encoders import autoencoder_identity, text_encoder_identity
from pipeline.images import png, seed_of
from pipeline.judges import Judge
from pipeline.pair_builders import Contender
from pipeline.rounds import policy_of
from pipeline.subjects import Subject, score_of, scorer_of, values_of
from pipeline.tables import NO_COMPRESSION, Manifest, Table, TableFolder, identifier
from pipeline.verdicts import accepted, build_judge

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


def folder(config: RunConfig) -> TableFolder:
    assert config.features is not None
    values = values_of(config)
    drawn = values.model_dump(mode="json", include={"image_size", "sampling", "seed"})
    drawn |= {
        "autoencoder": autoencoder_identity(config.features),
        "text encoder": text_encoder_identity(config.features),
        "text length": config.features.text_length,
        "judge": judges.identity(scorer_of(config).judge),
    }
    if "same_seed" in values.pairs:
        drawn["seed of samples"] = seed_of_samples(config)
    return TableFolder(config.root, SAMPLES, drawn)


def seed_of_samples(config: RunConfig) -> int:
    """The teacher's, where pictures of equal seeds are compared."""
    assert config.images is not None
    values = values_of(config)
    return config.images.seed if "same_seed" in values.pairs else values.seed


def name_of(
    folder: TableFolder,
    upstream: Mapping[str, Manifest],
    part: Sequence[Subject],
    samples_per_caption: int,
) -> str:
    captions = [subject.caption for subject in part]
    policy, _ = policy_of(upstream)
    return identifier(folder.fingerprint, policy.content, captions, samples_per_caption)


def draw_samples(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    part: Sequence[Subject],
    progress: Callable[[int], None],
) -> Iterator[pa.RecordBatch]:
    """The policy's pictures of these captions, each with the judge's verdict."""
    values, seed = values_of(config), seed_of_samples(config)
    judge = build_judge(scorer_of(config).judge, config.root)
    orders = [
        (subject, number, seed_of(subject.caption_id, number, seed))
        for subject in part
        for number in range(values.samples_per_caption)
    ]
    drawn = draw(
        config,
        checkpoint_folder(config, *policy_of(upstream)),
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


def contenders(config: RunConfig, drawer: str, samples: pa.Table) -> dict[str, list[Contender]]:
    """The samples by caption."""
    weight = values_of(config).alignment_weight
    found: dict[str, list[Contender]] = {}
    good = accepted(scorer_of(config), samples).tolist()
    for row, fine in zip(samples.to_pylist(), good, strict=True):
        origin = f"{drawer} sample {row['sample_index']}"
        score = score_of(row, weight)
        contender = Contender(origin, row["latents"], row["image"], score, fine, row["seed"])
        found.setdefault(row["caption_id"], []).append(contender)
    return found
