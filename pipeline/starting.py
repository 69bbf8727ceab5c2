"""Where a student starts, and what it leaves for another to start from.

In:    a checkpoint folder: of a finished training, or made from a published one.
Out:   weights and their average, both; the position tables serve every resolution, so that a
       student of 512 px grows from one of 256 px.

A checkpoint holds the averaged weights, which draw. Beside them `raw.safetensors` holds those that
were trained; where it is missing, the average stands for both.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lightgen_model import checkpoint
from lightgen_model.config import ModelConfig
from lightgen_model.model import LightGen
from pipeline.config import RunConfig
from pipeline.parallel import Weights

RAW = "raw.safetensors"
# Read in training alone: a start without it, or with another one, is no misfit.
TRAINING_ONLY = "repa."


def save_weights(
    folder: Path,
    model: ModelConfig,
    weights: Weights,
    about: Mapping[str, object],
    raw: Weights | None = None,
) -> None:
    """A checkpoint to draw with, so without what only training reads; float32, on the CPU.

    `raw` is kept whole, to train on from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if raw is not None:
        part = folder / f".{RAW}.part"
        save_file(plain(raw), part)
        checkpoint.publish(part, folder / RAW)
    drawn = {name: x for name, x in weights.items() if not name.startswith(TRAINING_ONLY)}
    checkpoint.save(folder, model.drawn, plain(drawn), about)


def plain(weights: Weights) -> Weights:
    return {name: value.detach().float().cpu().contiguous() for name, value in weights.items()}


def start_from(folder: Path, model: LightGen) -> Weights:
    """Give `model` the weights of a checkpoint; the average to go on with.

    ValueError where a tensor of the one is missing in the other or has another shape.
    """
    own = {name: value.clone() for name, value in model.state_dict().items()}
    given = checkpoint.load(folder).state_dict()
    misfits = sorted(
        name
        for name in {*own, *given}
        if not name.startswith(TRAINING_ONLY)
        and (name not in own or name not in given or own[name].shape != given[name].shape)
    )
    if misfits:
        raise ValueError(
            f"student.start: {folder} does not fit student.model in {len(misfits)} tensors, "
            f"such as {misfits[:3]}"
        )
    raw = {**given, **(_raw(folder) or {})}
    # What only training reads has no average of its own: it goes on from its raw weights.
    average, weights = {**raw, **given}, raw
    model.load_state_dict({**own, **_fitting(weights, own)})
    return {name: value.clone() for name, value in {**own, **_fitting(average, own)}.items()}


def _fitting(weights: Weights, own: Weights) -> Weights:
    return {n: x for n, x in weights.items() if n in own and x.shape == own[n].shape}


def _raw(folder: Path) -> Weights | None:
    path = folder / RAW
    if not path.is_file():
        return None
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def origins_of(config: RunConfig) -> dict[str, str]:
    """What a checkpoint says of the models that it needs to draw and of whom it learned.

    A value that there is none of is "". An exported pipeline's model card has a line for each.
    """
    features, images = config.features, config.images
    assert features is not None and images is not None
    teacher = images.teacher.model_dump(mode="json")
    named = [teacher.get(key) for key in ("repository", "dataset", "name", "kind")]
    sources = [each.model_dump(mode="json") for each in config.captions.sources]
    return {
        "autoencoder": features.autoencoder,
        "autoencoder_revision": features.autoencoder_revision or "",
        "autoencoder_subfolder": features.autoencoder_subfolder,
        "text_encoder": features.text_encoder,
        "text_encoder_revision": features.text_encoder_revision or "",
        "teacher": next(name for name in named if name),
        "teacher_revision": teacher.get("revision") or "",
        "teacher_licence": teacher["licence"],
        "captions": ", ".join(f"{each['name']} ({each.get('licence', 'MIT')})" for each in sources),
    }
