"""A checkpoint is a folder: `model.safetensors` (the weights to draw with) and `config.json`.

In:    a student, or a folder.
Out:   the folder, or a student in eval mode. `config.json` appears last, so a folder that has one
       is whole. `config.json` also carries `about`: where the weights came from, by value.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from lightgen_model.config import ModelConfig
from lightgen_model.model import LightGen
from lightgen_model.published import load_published as load_published
from lightgen_model.weights import read_safetensors, refuse_misfits

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Contents(BaseModel):
    """What `config.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelConfig
    about: dict[str, object]


def save(
    folder: Path, config: ModelConfig, weights: Mapping[str, Tensor], about: Mapping[str, object]
) -> None:
    """Write a whole checkpoint; each file by rename, flushed to disk, the config last."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{WEIGHTS}.part"
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, part)
    publish(part, folder / WEIGHTS)
    part = folder / f".{CONFIG}.part"
    values = {"model": config.model_dump(mode="json"), "about": dict(about)}
    part.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    publish(part, folder / CONFIG)


def publish(part: Path, final: Path) -> None:
    """Flush a finished file and give it its name, so that the name means whole."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(final)
    folder = os.open(final.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def read_config(folder: Path) -> tuple[ModelConfig, dict[str, object]]:
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} is no checkpoint: {CONFIG} is missing")
    try:
        contents = Contents.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return contents.model, contents.about


def load(folder: Path, device: str = "cpu", expected: ModelConfig | None = None) -> LightGen:
    """Read a checkpoint for drawing; ValueError for one that is damaged or of another kind."""
    config, _ = read_config(folder)
    if expected is not None and config != expected:
        raise ValueError(
            f"{folder} is a checkpoint of another config: {differing(config, expected)}"
        )
    weights = read_safetensors(folder / WEIGHTS, device)
    with torch.device("meta"):
        model = LightGen(config)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    # Assigned, not copied: on the CPU the parameters are the file's own pages.
    model.load_state_dict(refuse_misfits(str(folder / WEIGHTS), wanted, weights), assign=True)
    return model.eval().requires_grad_(False)


def differing(one: ModelConfig, other: ModelConfig) -> str:
    """The values in which two configs differ, for an error message."""
    first, second = one.model_dump(), other.model_dump()
    return ", ".join(
        f"{key} {first[key]!r} against {second[key]!r}"
        for key in first
        if first[key] != second[key]
    )
