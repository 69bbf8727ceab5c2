"""What is known of models by name: the work of one call, and the licence of their weights.

In:    a name as a run gives it, a hub repository or a folder.
Out:   TFLOP, or None where nothing was counted: a plan then says so. A multiply and an add are two.

Counted by torch's counter on tensors without values (lightgen.md 3.3), or from the published
shapes: FLUX.1 is 19 blocks with two streams and 38 with one, of width 3072.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import (
    ClipJudgeConfig,
    DiffusersTeacher,
    FeaturesConfig,
    JudgeConfig,
    PicturesTeacher,
    PluginTeacher,
    QwenJudge,
    ShapesTeacher,
    TeacherConfig,
)
from pipeline.plugins import is_plugin
from pipeline.teachers.requirements import KNOWN, STABILITY

FLUX = ("FLUX.1-schnell", "FLUX.1-dev", "FLUX.1-Krea-dev")
FLUX_BLOCKS, FLUX_WIDTH, FLUX_TOKEN_PIXELS = 19 + 38, 3072, 16
# The autoencoder with 16 channels at an eighth of the side, of SD 3.5 and FLUX.1, at 512 px.
VAE_PX, VAE_ENCODE, VAE_DECODE = 512, 1.118, 2.515
T5_TOKENS, T5_XXL = 128, 1.19
# Qwen2-VL-7B on a picture of 512 x 512: 1,296 patches through 0.68 B weights, then 324 picture
# tokens, about 250 of question and 120 of answer through 7.1 B.
QWEN_7B, QWEN_PIXELS = 11.6, 512 * 512
VISION = {  # weights
    "facebook/dinov2-small": 22e6,
    "facebook/dinov2-base": 86e6,
    "facebook/dinov2-large": 304e6,
}
CLIP_L = 0.16  # ViT-L/14 at 224 px
SHAPES_FOLDER = "models/shapes/"


@dataclass(frozen=True)
class Licence:
    """Terms of one thing that a stage uses."""

    what: str
    name: str
    caution: str = ""


APACHE = "Apache-2.0"
_STABILITY_CAUTION = (
    "free below a yearly revenue of 1M USD; who draws with the student needs the autoencoder, too"
)
WEIGHTS: Mapping[str, Licence] = {
    "google/flan-t5-xxl": Licence("google/flan-t5-xxl", APACHE),
    "google/t5-v1_1-xxl": Licence("google/t5-v1_1-xxl", APACHE),
    "facebook/dinov2-base": Licence("facebook/dinov2-base", APACHE),
    "Qwen/Qwen2-VL-7B-Instruct": Licence("Qwen/Qwen2-VL-7B-Instruct", APACHE),
    "Qwen/Qwen2.5-VL-7B-Instruct": Licence("Qwen/Qwen2.5-VL-7B-Instruct", APACHE),
}


def of_shapes(place: str) -> bool:
    """Is it one of the small models of the embedded world?"""
    return SHAPES_FOLDER in f"{place}/"


def licence_of(place: str) -> Licence:
    """Of a model's weights, by its name."""
    if of_shapes(place):
        return Licence(f"shapes {Path(place).name.replace('_', ' ')}", "MIT")
    if is_plugin(place):
        return Licence(place, "its author's", "code of one's own")
    if place in WEIGHTS:
        return WEIGHTS[place]
    if place in KNOWN:
        terms = KNOWN[place]
        caution = _STABILITY_CAUTION if terms.licence == STABILITY else terms.caution
        return Licence(place, terms.licence, caution)
    return Licence(place, "not known here", "read its card")


def teacher_licence(teacher: TeacherConfig) -> Licence:
    if isinstance(teacher, ShapesTeacher):
        return Licence("shapes", teacher.licence)
    if isinstance(teacher, PluginTeacher):
        return Licence(teacher.path, teacher.licence)
    if isinstance(teacher, PicturesTeacher):
        name = teacher.dataset or teacher.name
    else:
        name = teacher.repository
    terms = KNOWN.get(name)
    caution = terms.caution if terms else ""
    if terms and not terms.distillation and not caution:
        caution = "restricts what may be trained on its pictures"
    return Licence(name, teacher.licence, caution)


# --- work -----------------------------------------------------------------------------------------


def teacher_tflop(teacher: TeacherConfig, size: int) -> float | None:
    """A picture with its text and its decoding."""
    if not isinstance(teacher, DiffusersTeacher) or not _is_flux(teacher.repository):
        return None
    step = flux_tflop(size, teacher.max_sequence_length)
    text = T5_XXL * teacher.max_sequence_length / T5_TOKENS
    return teacher.num_steps * step + text + VAE_DECODE * (size / VAE_PX) ** 2


def flux_tflop(size: int, text_tokens: int) -> float:
    """One step of FLUX.1 on one picture: 12 squares of its width a token and block, attention."""
    tokens = (size // FLUX_TOKEN_PIXELS) ** 2 + text_tokens
    linear = 2 * 12 * FLUX_WIDTH**2 * tokens
    return FLUX_BLOCKS * (linear + 4 * tokens**2 * FLUX_WIDTH) / 1e12


def judge_tflop(judge: JudgeConfig) -> float | None:
    """A picture judged, of `max_pixels`: a stated bound where pictures are smaller."""
    if isinstance(judge, ClipJudgeConfig):
        return CLIP_L if judge.model == "ViT-L-14" else None
    if isinstance(judge, QwenJudge) and judge.model.endswith("VL-7B-Instruct"):
        return QWEN_7B * judge.max_pixels / QWEN_PIXELS
    return None


def text_tflop(features: FeaturesConfig, tokens: float | None = None) -> float | None:
    """A caption of so many tokens; None: at its full length, padding and all."""
    known = features.text_encoder in ("google/flan-t5-xxl", "google/t5-v1_1-xxl")
    return T5_XXL * (tokens or features.text_length) / T5_TOKENS if known else None


def vision_tflop(encoder: str, tokens: int) -> float | None:
    """A picture of so many patches."""
    return 2 * VISION[encoder] * tokens / 1e12 if encoder in VISION else None


def encode_tflop(features: FeaturesConfig, size: int) -> float | None:
    return VAE_ENCODE * (size / VAE_PX) ** 2 if _is_vae(features.autoencoder) else None


def decode_tflop(features: FeaturesConfig, size: int) -> float | None:
    return VAE_DECODE * (size / VAE_PX) ** 2 if _is_vae(features.autoencoder) else None


def _is_flux(repository: str) -> bool:
    owner, _, name = repository.partition("/")
    return owner == "black-forest-labs" and name in FLUX


def _is_vae(repository: str) -> bool:
    return _is_flux(repository) or repository.startswith("stabilityai/stable-diffusion-3")
