"""What a run takes on disk: bytes a row of every table, from its values alone.

In:    a `RunConfig`, and what its rows are like on average (stated, or measured on a part).
Out:   bytes by table, before anything is made.
Rerun: a pure function; nothing heavy is imported, so a plan may call it on any machine.

Checked against tables on disk in `tests/pipeline/test_storage.py`, to 5 %.
"""

from dataclasses import dataclass

from lightgen_model.config import ModelConfig
from pipeline.config import FeaturesConfig, RunConfig
from pipeline.quantization import group_of

ID = 16.0  # hex digits
# What Lance 2.2 adds to a value that varies; a column that is the same in all rows takes nothing.
STRING, BINARY = 4.2, 12.1
FLOAT16 = 2
# Bits a pixel of photographs, by format, at the default quality of 95.
BITS_PER_PIXEL = {"png": 17.0, "webp": 3.0, "jpeg": 4.0}


@dataclass(frozen=True)
class Means:
    """What an average row holds; give those that you have measured.

    Short captions are like PartiPrompts (9 words, 47 bytes), long ones like DPG-Bench (67 words,
    408 bytes, 84 tokens as published); a token is 0.8 words.
    """

    short_tokens: float = 13
    long_tokens: float = 84
    short_bytes: float = 47
    long_bytes: float = 408
    short_share: float = 0.3  # where the run does not select by length
    place_bytes: float = 30  # of the file and line that a caption came from
    reason_bytes: float = 1  # of captions, kept ones included
    match_bytes: float = 0
    words_bytes: float = 90  # the judge's words and reason
    answer_bytes: float = 310  # the judge's raw answer
    bits_per_pixel: float | None = None  # of pictures as stored; None: of photographs

    def caption_tokens(self, config: RunConfig) -> float:
        """Tokens that are stored for a caption, at most `features.text_length`."""
        tokens = _mixed(self._short(config), self.short_tokens, self.long_tokens)
        return min(tokens, config.features.text_length) if config.features else tokens

    def caption_bytes(self, config: RunConfig) -> float:
        return _mixed(self._short(config), self.short_bytes, self.long_bytes)

    def picture_bytes(self, config: RunConfig, size: int) -> float:
        assert config.images is not None
        bits = self.bits_per_pixel or BITS_PER_PIXEL[config.images.picture.format]
        return bits / 8 * size**2

    def _short(self, config: RunConfig) -> float:
        chosen = config.captions.selection
        if chosen is None or chosen.short_share is None:
            return self.short_share
        return chosen.short_share


def _mixed(share: float, short: float, long: float) -> float:
    return share * short + (1 - share) * long


def bytes_per_row(config: RunConfig, means: Means = Means()) -> dict[str, float]:
    """Bytes a row of each table that the run makes; `images` has an entry a size, `images_512`.

    Rows: `captions` one a caption harvested, `images_<px>` and `verdicts` one a picture, `text` one
    a caption with an accepted picture, `features_<px>` and `alignment_<px>` one a picture accepted,
    `samples` one a picture of the student, `preferences` one a comparison.
    """
    caption = means.caption_bytes(config)
    found = {"captions": _captions(caption, means)}
    if config.images:
        for size in config.images.image_sizes:
            picture = means.picture_bytes(config, size) + BINARY
            found[f"images_{size}"] = 2 * (ID + STRING) + caption + STRING + 8 + picture
    if config.verdicts:
        said = means.words_bytes + means.answer_bytes + 3 * STRING
        found["verdicts"] = 2 * (ID + STRING) + 8 + said
    model = config.student.model if config.student else ModelConfig()
    if config.features:
        found |= _features(config, config.features, model, means.caption_tokens(config))
    if config.preferences and config.features:
        size = config.preferences.image_size
        # Drawn by the student and kept as PNG, whatever the teacher's pictures are kept as.
        bits = means.bits_per_pixel or BITS_PER_PIXEL["png"]
        drawn = latent_values(size, model) * FLOAT16 + bits / 8 * size**2 + 2 * BINARY
        found["samples"] = ID + caption + means.words_bytes + 8 + 8 + 4 * STRING + drawn
        found["preferences"] = 2 * ID + caption + 8 + 5 * STRING + 2 * drawn
    return found


def bytes_per_pair(config: RunConfig, means: Means = Means()) -> dict[str, float]:
    """What is kept to train on for a caption with one accepted picture: text and latents."""
    rows = bytes_per_row(config, means)
    latents = sum(size for name, size in rows.items() if name.startswith("features_"))
    return {"text": rows.get("text", 0.0), "latents": latents}


def _captions(caption: float, means: Means) -> float:
    place, reason = means.place_bytes + STRING, means.reason_bytes + STRING
    match = means.match_bytes + STRING if means.match_bytes else 0.0
    return ID + STRING + caption + STRING + place + reason + match + 1 / 8


def _features(
    config: RunConfig, features: FeaturesConfig, model: ModelConfig, tokens: float
) -> dict[str, float]:
    found = {"text": ID + STRING + 1 + _states(features, model.text_width, tokens)}
    for size in features.image_sizes:
        kept = 2 if features.latents == "moments" else 1  # mean and log-variance, or the mean
        values = kept * latent_values(size, model) * FLOAT16
        found[f"features_{size}"] = 2 * (ID + STRING) + values
        if features.alignment_encoder and model.repa:
            seen = model.grid(size) ** 2 * model.repa.width * FLOAT16
            found[f"alignment_{size}"] = ID + STRING + seen + BINARY
    return found


def _states(features: FeaturesConfig, width: int, tokens: float) -> float:
    if features.text_states == "bfloat16":
        return tokens * width * 2 + BINARY
    scales = tokens * width / group_of(width) * FLOAT16
    return tokens * width + scales + 2 * BINARY + 4  # and the row's error


def latent_values(size: int, model: ModelConfig) -> int:
    """Numbers in one latent (c, h, w)."""
    return model.latent_channels * (size // model.latent_stride) ** 2
