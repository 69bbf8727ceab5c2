"""What a person sees of the features: tables and their sizes, lengths of texts, what the VAE keeps.

In:    the stages before, and the manifest of the features.
Out:   their `Description`, with the error of states that are stored in eight bits.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.captions import spread
from pipeline.config import RunConfig
from pipeline.description import Description, Grid, Picture
from pipeline.encoded_pictures import resized
from pipeline.encoders import autoencoder, autoencoder_identity, text_encoder_identity
from pipeline.feature_tables import model_of, name_of, values_of
from pipeline.features import STAGE, used
from pipeline.pictures import Cell, side_by_side
from pipeline.tables import Manifest, Snapshot, read, take
from pipeline.verdicts import judged

UNUSED = "no size needs it"
SHOWN = 9


def describe_features(
    config: RunConfig, upstream: Mapping[str, Manifest], manifest: Manifest
) -> Description:
    values, table = values_of(config), judged(config, upstream)
    chosen = used(config, table)
    counted = pc.value_counts(table["why"].filter(pa.array(~chosen))).to_pylist()
    reasons = {each["values"] or UNUSED: each["counts"] for each in counted}
    snapshots = manifest.snapshots
    return Description(
        stage=STAGE,
        title="Features",
        rows_in=len(table),
        kept=int(chosen.sum()),
        rejected=int((~chosen).sum()),
        reasons=dict(sorted(reasons.items())),
        facts={
            **{name: snapshot.label for name, snapshot in snapshots.items()},
            "content": manifest.content,
            "images": upstream["images"].snapshots["images"].label,
            "verdicts": upstream["verdicts"].snapshots["verdicts"].label,
            "autoencoder": f"{values.autoencoder} ({autoencoder_identity(values)[:16]})",
            "text encoder": f"{values.text_encoder} ({text_encoder_identity(values)[:16]})",
            "latents": f"{values.latents}, float16",
            **_states_fact(config, snapshots["text"]),
        },
        tables=(_sizes(snapshots), _lengths(config, snapshots["text"])),
        pictures=tuple(
            _reconstructions(config, upstream, snapshots[name_of(size)], size)
            for size in values.image_sizes[-1:]
            if snapshots[name_of(size)].rows
        ),
    )


def _states_fact(config: RunConfig, snapshot: Snapshot) -> dict[str, str]:
    """How states are stored, and what that costs where it was measured."""
    if values_of(config).text_states == "bfloat16" or not snapshot.rows:
        return {"text states": values_of(config).text_states}
    errors = read(config.root, snapshot, ["error"], check=False)["error"].to_numpy()
    told = f"int8, relative error {errors.mean():.2%} on average, {errors.max():.2%} at most"
    return {"text states": told}


def _sizes(snapshots: Mapping[str, Snapshot]) -> Grid:
    cells = []
    for name, snapshot in snapshots.items():
        size = sum(shard.size for shard in snapshot.shards)
        numbers = (snapshot.rows, len(snapshot.shards), size // max(1, snapshot.rows))
        cells.append((name, *(f"{n:,}" for n in numbers), f"{size / 2**20:,.1f}"))
    return Grid("Tables", ("table", "rows", "shards", "bytes a row", "MiB"), tuple(cells))


def _lengths(config: RunConfig, snapshot: Snapshot) -> Grid:
    lengths = read(config.root, snapshot, ["length"], check=False)["length"].to_numpy()
    if not len(lengths):
        return Grid("Text lengths", ("tokens", "captions"), ())
    cut = int((lengths >= values_of(config).text_length).sum())
    cells = (
        ("fewest", f"{lengths.min():,}"),
        ("mean", f"{lengths.mean():.1f}"),
        ("most", f"{lengths.max():,}"),
        ("captions at the limit", f"{cut:,}"),
    )
    return Grid("Text lengths, in tokens", ("", "tokens"), cells)


def _reconstructions(
    config: RunConfig, upstream: Mapping[str, Manifest], snapshot: Snapshot, size: int
) -> Picture:
    """What the VAE keeps: pictures beside what it makes of their latents."""
    rows = spread(snapshot.rows, SHOWN)
    latents = values_of(config).latents
    shown = take(config.root, snapshot, rows, ["image_id", latents])
    wanted = shown["image_id"].combine_chunks()
    asked = pc.index_in(judged(config, upstream)["image_id"], value_set=wanted)
    places = np.flatnonzero(asked.is_valid().to_numpy())
    places = places[np.argsort(asked.take(pa.array(places)).to_numpy())]  # in the order asked for
    drawn = take(
        config.root,
        upstream["images"].snapshots["images"],
        places.tolist(),
        ["image", "caption"],
    ).to_pylist()
    left = [Cell(resized(row["image"], size), row["caption"]) for row in drawn]
    restored = _restored(config, shown[latents], size)
    right = [Cell(image, row["caption"]) for image, row in zip(restored, drawn, strict=True)]
    sheet = side_by_side(f"Drawn, {size} px", left, "From their latents", right)
    return Picture("What the VAE keeps", sheet)


def _restored(config: RunConfig, column: pa.ChunkedArray, size: int) -> NDArray[np.uint8]:
    """Pictures (B, H, W, 3) that the autoencoder makes of what is stored."""
    from lightgen_model.autoencoder import to_images
    from pipeline.batches import mean_latents

    encoder = autoencoder(values_of(config), config.device)
    cells = size // model_of(config).latent_stride
    latents = mean_latents(column, values_of(config).latents, cells, encoder.scale, encoder.shift)
    images: NDArray[np.uint8] = to_images(encoder.decode(latents)).cpu().numpy()
    return images
