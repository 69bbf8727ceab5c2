"""The values of a run, one by one: their dotted paths, the models that they name.

In:    a section of a run as plain values.
Out:   each single value with its path; models and data sets with revision, licence and sum.
Rerun: the same values give the same answer, unless a folder of weights has changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.encoders import weights_identity

MODEL_KEYS = (
    "repository", "dataset", "model", "autoencoder", "text_encoder", "alignment_encoder",
    "detector", "clip", "start",
)  # fmt: skip


def flattened(values: object, place: str = "") -> Iterator[tuple[str, object]]:
    """Every single value with its dotted path, as an override names it."""
    below: Sequence[tuple[object, object]] = ()
    if isinstance(values, Mapping):
        below = list(values.items())
    elif isinstance(values, list | tuple) and any(isinstance(v, Mapping) for v in values):
        below = list(enumerate(values))
    else:
        yield place, values
    for key, value in below:
        yield from flattened(value, f"{place}.{key}" if place else str(key))


def models_of(section: str, values: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The models and data sets that values name: revision, licence, and a folder's own sum."""
    leaves = dict(flattened(values, section))
    found = {}
    for place, value in leaves.items():
        above, _, key = place.rpartition(".")
        if key not in MODEL_KEYS or not isinstance(value, str):
            continue
        revision = leaves.get(f"{place}_revision") or leaves.get(f"{above}.revision") or ""
        facts = {"name": value, "revision": str(revision)}
        if licence := leaves.get(f"{above}.licence"):
            facts["licence"] = str(licence)
        if Path(value).is_dir():
            facts["sha256"] = weights_identity(value, None)
        found[place] = facts
    return found
