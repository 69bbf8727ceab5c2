"""Features: what the student trains on, so that training loads neither VAE nor T5.

In:    `captions`, `images`, and `verdicts` through the run's thresholds.
Out:   `text`, one row for every caption that has an accepted picture, and for each size `px` a
       table `features_<px>`, one row for every accepted picture drawn at the smallest size that
       is not below `px`, reduced to `px` where it is larger. With `features.alignment_encoder`
       also `alignment_<px>`: what a vision model sees in the same pictures, in the same order.
Rerun: encodes only what is new: a shard is named by the captions or pictures that it holds. Tables
       that are made of the same pictures are made in one pass over them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import RunConfig, VerdictsConfig
from pipeline.description import Description
from pipeline.encoded_pictures import View, alignment_view, latents_view, write_pictures
from pipeline.encoded_text import write_text
from pipeline.encoders import autoencoder, text_encoder, vision_encoder
from pipeline.feature_tables import folders_of, model_of, source_size, values_of
from pipeline.tables import Manifest, Shard, Snapshot, TableFolder, Work, batches, identifier, read
from pipeline.verdicts import CLIP, judged, judged_images

STAGE = "features"
CAPTIONS_PER_SHARD = 2048
TEXT_NAME = "text"


def find(config: RunConfig, upstream: Mapping[str, Manifest]) -> Manifest | None:
    inputs = _inputs(upstream)
    found = {name: folder.find(inputs) for name, folder in folders_of(config).items()}
    whole = {name: snapshot for name, snapshot in found.items() if snapshot is not None}
    return Manifest.of(STAGE, whole) if len(whole) == len(found) else None


def places(config: RunConfig, upstream: Mapping[str, Manifest]) -> tuple[str, ...]:
    """What the stage writes, below the root."""
    return tuple(folder.place for folder in folders_of(config).values())


def plan(config: RunConfig, upstream: Mapping[str, Manifest]) -> list[Work]:
    folders = folders_of(config)
    works = _text_works(config, upstream, folders.pop(TEXT_NAME))
    sources = {name: source_size(config, _size_of(name)) for name in folders}
    for source in dict.fromkeys(sources.values()):
        alike = {name: folder for name, folder in folders.items() if sources[name] == source}
        works += _picture_works(config, upstream, source, alike)
    return works


def whole(config: RunConfig, upstream: Mapping[str, Manifest], work: Work) -> list[Shard] | None:
    """The shards of a piece of work if their files are there and right."""
    folders = folders_of(config)
    if work.name.startswith(f"{TEXT_NAME}:"):
        found = [folders[TEXT_NAME].whole_shard(name) for name in work.sources[1:]]
    else:
        names, shards = (part.split("+") for part in work.name.split(":"))
        found = [folders[n].whole_shard(s) for n, s in zip(names, shards, strict=True)]
    there = [shard for shard in found if shard is not None]
    return there if len(there) == len(found) else None


def side_by_side(config: RunConfig) -> bool:
    """Encoders and tokenizers serve one thread; pictures are decoded beside them already."""
    return False


def make(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    if work.name.startswith(f"{TEXT_NAME}:"):
        return _make_text(config, upstream, work, progress)
    return _make_pictures(config, upstream, work, progress)


def commit(
    config: RunConfig, upstream: Mapping[str, Manifest], shards: Sequence[Shard]
) -> Manifest:
    inputs = _inputs(upstream)
    return Manifest.of(
        STAGE,
        {
            name: folder.commit([s for s in shards if s.table == folder.name], inputs)
            for name, folder in folders_of(config).items()
        },
    )


def describe(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    from pipeline.feature_description import describe_features

    return describe_features(config, upstream, manifest)


def _inputs(upstream: Mapping[str, Manifest]) -> str:
    """The verdicts' content holds the thresholds, too."""
    return identifier([upstream[stage].content for stage in ("captions", "images", "verdicts")])


def _size_of(name: str) -> int:
    return int(name.rpartition("_")[2])


# --- text ---------------------------------------------------------------------------------------


def _text_works(
    config: RunConfig, upstream: Mapping[str, Manifest], folder: TableFolder
) -> list[Work]:
    """All shards of text for a shard of captions, so that one is written beside the next."""
    works = []
    for shard in upstream["captions"].snapshots["captions"].shards:
        parts = _text_shards(config, upstream, shard.name, folder)
        if parts:
            names, rows = [name for name, _ in parts], sum(len(part) for _, part in parts)
            name = names[0] if len(names) == 1 else identifier(names)
            works.append(Work(f"{TEXT_NAME}:{name}", (shard.name, *names), 0, rows))
    return works


def _text_shards(
    config: RunConfig, upstream: Mapping[str, Manifest], shard: str, folder: TableFolder
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each shard's name with its captions."""
    captions = _wanted_captions(config, upstream, shard)
    parts = [
        captions[first : first + CAPTIONS_PER_SHARD]
        for first in range(0, len(captions), CAPTIONS_PER_SHARD)
    ]
    return [(identifier(folder.fingerprint, part), part) for part in parts]


def _make_text(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    values, folder = values_of(config), folders_of(config)[TEXT_NAME]
    parts = _text_shards(config, upstream, work.sources[0], folder)
    found = {name: folder.whole_shard(name) for name, _ in parts}
    missing = [part for part in parts if found[part[0]] is None]
    if missing:
        encoder = text_encoder(values, config.device)
        for shard in write_text(encoder, missing, values, folder, progress):
            found[shard.name] = shard
    return [shard for shard in found.values() if shard is not None]


def _wanted_captions(
    config: RunConfig, upstream: Mapping[str, Manifest], shard: str
) -> list[tuple[str, str]]:
    """The captions of a shard that have an accepted picture at a size that is used."""
    snapshot = upstream["captions"].snapshots["captions"]
    table = read(config.root, snapshot, ["caption_id", "caption", "keep"], [shard])
    kept = table.filter(table["keep"])
    said = upstream["verdicts"].snapshots
    assert config.verdicts is not None
    wanted = _wanted_ids(
        config.root,
        config.verdicts,
        upstream["images"].snapshots["images"],
        said["verdicts"],
        said.get(CLIP),
        _sources(config),
    )
    ids, captions = kept["caption_id"].to_pylist(), kept["caption"].to_pylist()
    places = np.searchsorted(wanted, np.array(ids, wanted.dtype)).tolist()
    return [
        (caption_id, caption)
        for caption_id, caption, place in zip(ids, captions, places, strict=True)
        if place < len(wanted) and wanted[place] == caption_id.encode()
    ]


@lru_cache(maxsize=1)
def _wanted_ids(
    root: str,
    values: VerdictsConfig,
    images: Snapshot,
    verdicts: Snapshot,
    clip: Snapshot | None,
    sources: tuple[int, ...],
) -> NDArray[np.bytes_]:
    """Captions that have an accepted picture: sorted bytes, since millions of strings are large."""
    table = judged_images(root, values, images, verdicts, clip)
    column = table["caption_id"].filter(pa.array(_used(table, sources)))
    parts = [np.array(chunk.to_pylist(), "S") for chunk in column.chunks if len(chunk)]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, "S1")


def used(config: RunConfig, table: pa.Table) -> NDArray[np.bool_]:
    """Accepted, and drawn at a size that a features table is made from."""
    return _used(table, _sources(config))


def _sources(config: RunConfig) -> tuple[int, ...]:
    return tuple(source_size(config, size) for size in values_of(config).image_sizes)


def _used(table: pa.Table, sources: Sequence[int]) -> NDArray[np.bool_]:
    accepted: NDArray[np.bool_] = table["accepted"].to_numpy()
    return accepted & np.isin(table["width"].to_numpy(), sources)


# --- pictures -----------------------------------------------------------------------------------


def _picture_works(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    source: int,
    folders: Mapping[str, TableFolder],
) -> list[Work]:
    """One shard a table for a shard of images, of the pictures in it that are accepted."""
    table = judged(config, upstream)
    chosen = table["accepted"].to_numpy() & (table["width"].to_numpy() == source)
    works, first = [], 0
    for shard in upstream["images"].snapshots["images"].shards:
        rows = np.flatnonzero(chosen[first : first + shard.rows])
        if len(rows):
            own = table["image_id"].slice(first, shard.rows)
            accepted = own.take(pa.array(rows)).to_pylist()
            shards = [
                identifier(folder.fingerprint, shard.sha256, accepted)
                for folder in folders.values()
            ]
            name = f"{'+'.join(folders)}:{'+'.join(shards)}"
            works.append(Work(name, (shard.name,), first, len(rows)))
        first += shard.rows
    return works


def _make_pictures(
    config: RunConfig,
    upstream: Mapping[str, Manifest],
    work: Work,
    progress: Callable[[int], None],
) -> list[Shard]:
    names, shards = (part.split("+") for part in work.name.split(":"))
    folders = [folders_of(config)[name] for name in names]
    found = [folder.whole_shard(shard) for folder, shard in zip(folders, shards, strict=True)]
    missing = [row for row, shard in enumerate(found) if shard is None]
    if missing:
        views = [_view(config, folders[row], shards[row]) for row in missing]
        pieces = _accepted_pieces(config, upstream, work)
        made = write_pictures(pieces, views, values_of(config), config.device, progress)
        for row, shard in zip(missing, made, strict=True):
            found[row] = shard
    return [shard for shard in found if shard is not None]


def _view(config: RunConfig, folder: TableFolder, shard: str) -> View:
    values, size = values_of(config), _size_of(folder.table.name)
    if folder.table.name.startswith("alignment"):
        encoder = vision_encoder(values, config.device)
        return alignment_view(encoder, folder, shard, model_of(config).grid(size))
    return latents_view(autoencoder(values, config.device), folder, shard, size, values.latents)


def _accepted_pieces(
    config: RunConfig, upstream: Mapping[str, Manifest], work: Work
) -> Iterator[pa.Table]:
    images, first = upstream["images"].snapshots["images"], work.first
    accepted = judged(config, upstream)["accepted"].to_numpy()
    columns = ["image_id", "caption_id", "width", "image"]
    for piece in batches(config.root, images, columns, work.sources):
        yield piece.filter(pa.array(accepted[first : first + len(piece)]))
        first += len(piece)
