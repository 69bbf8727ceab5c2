"""Plug-ins: captions, teachers, judges and encoders of one's own, named by the place of a class.

In:    `package.module:Class` as a run gives it, the values to call it with.
Out:   what the class makes. It follows the protocol of its room (`CaptionSource`, `Teacher`,
       `Judge`, or the methods of `Autoencoder` and `TextEncoder`).
Rerun: the path and the values name the table; `version` is raised by hand when the code changes.

A run's values can be given by anyone who may start one, so a path alone loads nothing: the machine
says in LIGHTGEN_PLUGINS which packages may be loaded from, names with commas between them.
"""

import os
import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pipeline.config import PLUGIN_PATH

ALLOWED = "LIGHTGEN_PLUGINS"


def is_plugin(place: str) -> bool:
    """Whether a place that may be a folder or a repository is a class."""
    return re.match(PLUGIN_PATH, place) is not None


def load(path: str, values: Mapping[str, Any]) -> Any:
    """Call the class; ValueError where it may not be loaded or does not take these values."""
    if lacking := missing(path):
        raise ValueError(lacking)
    module, _, name = path.partition(":")
    made = getattr(import_module(module), name, None)
    if not isinstance(made, type):
        raise ValueError(f"plug-in {path}: {module} has no class {name}")
    try:
        return made(**values)
    except TypeError as error:
        raise ValueError(f"plug-in {path} with the values {dict(values)}: {error}") from error


def missing(path: str, place: str = "plug-in") -> str:
    """Why it cannot be loaded; empty where it can. Its module is not imported for that."""
    module = path.partition(":")[0]
    allowed = [name.strip() for name in os.environ.get(ALLOWED, "").split(",") if name.strip()]
    if not any(module == name or module.startswith(f"{name}.") for name in allowed):
        return (
            f"{place} {path}: this machine loads no plug-ins from {module}; allow its package in "
            f"the environment of the worker: {ALLOWED}={module.partition('.')[0]} (allowed: "
            f"{', '.join(allowed) or 'none'})"
        )
    try:
        there = find_spec(module) is not None
    except ImportError:
        there = False
    return "" if there else f"{place} {path}: there is no module {module}"
