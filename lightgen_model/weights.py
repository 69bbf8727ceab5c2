"""Files of weights: read without running code in them, and refused by name where they do not fit.

In:    a `.safetensors` file, or a pickle of torch (`.pth`, `.pt`, `.ckpt`).
Out:   tensors by name. They are views of the file where its format allows that, so a large file is
       not held twice. ValueError names the file and the first names of what is wrong with it.
"""

import argparse
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

SHOWN = 5  # names an error lists


def read_safetensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    try:
        return load_file(path, device=device)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def read_pickle(path: Path) -> object:
    """What a torch pickle holds: tensors, plain values and an `argparse.Namespace`, nothing else.

    A pickle that names any other class or function is refused, and what it names is not run.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Files of the older format, which are no zip, cannot be mapped.
            mapped = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path} cannot be read as weights alone: {reason}") from error


def refuse_misfits(
    place: str, wanted: Mapping[str, torch.Size], given: Mapping[str, object]
) -> dict[str, Tensor]:
    """The given tensors, once they are what is wanted: the names, the shapes, finite floats."""
    tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    shared = wanted.keys() & tensors.keys()
    shapes = {name: (tuple(tensors[name].shape), tuple(wanted[name])) for name in shared}
    problems = {
        "missing": wanted.keys() - given.keys(),
        "unknown": given.keys() - wanted.keys(),
        "not a tensor": given.keys() - tensors.keys(),
        "of another shape": [
            f"{name} {found} for {needed}"
            for name, (found, needed) in shapes.items()
            if found != needed
        ],
        "not floating": [
            f"{name} {tensors[name].dtype}"
            for name in shared
            if not tensors[name].is_floating_point()
        ],
    }
    if any(problems.values()):
        raise ValueError(f"{place} does not fit: {listed(problems)}")
    bad = [name for name in shared if not finite(tensors[name])]
    if bad:
        raise ValueError(f"{place} does not fit: {listed({'NaN or infinite': bad})}")
    return tensors


def listed(problems: Mapping[str, Iterable[str]]) -> str:
    parts = []
    for what, names in problems.items():
        if found := sorted(names):
            more = ", ..." if len(found) > SHOWN else ""
            parts.append(f"{len(found)} {what} ({', '.join(found[:SHOWN])}{more})")
    return "; ".join(parts)


def finite(tensor: Tensor) -> bool:
    """Whether every value is a number; by the extremes, which need no copy of a large tensor."""
    low, high = tensor.detach().aminmax()
    return bool(torch.isfinite(low) & torch.isfinite(high))
