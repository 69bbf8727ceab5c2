"""The tables of features: their contracts, and which of them a run makes.

In:    a `RunConfig`.
Out:   `text`, `features_<px>` and `alignment_<px>` as folders, named by what shapes their rows.
Rerun: the same values give the same names; weights in a folder are told by their content.

Shapes: C latent channels, h w latent cells, L text tokens, E text width, G groups of channels that
share a scale, N image tokens, F width of the vision model.
"""

import pyarrow as pa

from lightgen_model.config import ModelConfig
from pipeline.config import FeaturesConfig, RunConfig
from pipeline.decoding import FITTING
from pipeline.encoders import autoencoder_identity, text_encoder_identity, weights_identity
from pipeline.tables import NO_COMPRESSION, Table, TableFolder

TEXT = Table(
    name="text",
    version=1,
    schema=pa.schema(
        [
            pa.field("caption_id", pa.string(), False),
            # The bits of bfloat16 states (L, E), without padding.
            pa.field("states", pa.large_binary(), False, NO_COMPRESSION),
            pa.field("length", pa.int32(), False),  # L
        ]
    ),
)

TEXT_INT8 = Table(
    name="text",
    version=1,
    schema=pa.schema(
        [
            pa.field("caption_id", pa.string(), False),
            # int8 values (L, E) and the bits of their float16 scales (L, G), without padding.
            pa.field("states", pa.large_binary(), False, NO_COMPRESSION),
            pa.field("scales", pa.large_binary(), False, NO_COMPRESSION),
            pa.field("length", pa.int32(), False),  # L
            pa.field("error", pa.float32(), False),  # relative, root mean square, of this row
        ]
    ),
)


def text_table(values: FeaturesConfig) -> Table:
    return TEXT if values.text_states == "bfloat16" else TEXT_INT8


def text_columns(values: FeaturesConfig) -> list[str]:
    """What a reader of states asks for."""
    names = ["caption_id", "states", "scales", "length"]
    return [name for name in names if name in text_table(values).schema.names]


def features_table(size: int, channels: int, stride: int, latents: str = "moments") -> Table:
    """Moments are (2C, h, w) flat, mean then log-variance; means are (C, h, w); not normalised."""
    parts = 2 if latents == "moments" else 1
    width = parts * channels * (size // stride) ** 2
    fields = [
        pa.field("image_id", pa.string(), False),
        pa.field("caption_id", pa.string(), False),
        pa.field(latents, pa.list_(pa.float16(), width), False),
    ]
    return Table(name=name_of(size), version=1, schema=pa.schema(fields))


def name_of(size: int) -> str:
    return f"features_{size}"


def alignment_table(size: int) -> Table:
    """A table of its own, so that features are the same with it and without."""
    fields = [
        pa.field("image_id", pa.string(), False),
        # The bits of float16 features (N, F).
        pa.field("alignment", pa.large_binary(), False, NO_COMPRESSION),
    ]
    return Table(name=alignment_of(size), version=1, schema=pa.schema(fields))


def alignment_of(size: int) -> str:
    return f"alignment_{size}"


# --- of a run -----------------------------------------------------------------------------------


def values_of(config: RunConfig) -> FeaturesConfig:
    assert config.features is not None
    return config.features


def model_of(config: RunConfig) -> ModelConfig:
    """The student's sizes; those published where the run trains none."""
    return config.student.model if config.student else ModelConfig()


def folders_of(config: RunConfig) -> dict[str, TableFolder]:
    """Every table that the run's features have, by name."""
    values = values_of(config)
    found = {"text": _text_folder(config, values)}
    for size in values.image_sizes:
        found[name_of(size)] = _latents_folder(config, values, size)
        if values.alignment_encoder:
            found[alignment_of(size)] = _alignment_folder(config, values, size)
    return found


def _shared(values: FeaturesConfig) -> dict[str, object]:
    """The size of a batch is a value: it may change the last bit of what an encoder gives."""
    return {"batch_size": values.batch_size, "dtype": values.dtype}


def _text_folder(config: RunConfig, values: FeaturesConfig) -> TableFolder:
    made = {**_shared(values), "encoder": text_encoder_identity(values)}
    made["length"] = values.text_length
    if values.text_padding != "full":
        made["padding"] = values.text_padding
    return TableFolder(config.root, text_table(values), made)


def _latents_folder(config: RunConfig, values: FeaturesConfig, size: int) -> TableFolder:
    model, source = model_of(config), source_size(config, size)
    table = features_table(size, model.latent_channels, model.latent_stride, values.latents)
    made = {**_shared(values), "encoder": autoencoder_identity(values), "drawn at": source}
    if source != size:
        made["fitting"] = FITTING
    return TableFolder(config.root, table, made)


def _alignment_folder(config: RunConfig, values: FeaturesConfig, size: int) -> TableFolder:
    assert values.alignment_encoder is not None
    identity = weights_identity(values.alignment_encoder, values.alignment_encoder_revision)
    made = {**_shared(values), "encoder": identity, "drawn at": source_size(config, size)}
    made |= {"grid": model_of(config).grid(size), "fitting": FITTING}
    return TableFolder(config.root, alignment_table(size), made)


def source_size(config: RunConfig, size: int) -> int:
    """The smallest size drawn that need not be enlarged."""
    assert config.images is not None
    return min(drawn for drawn in config.images.image_sizes if drawn >= size)
