"""Whether every accepted picture has its features, before anything is trained on them.

In:    `images`, `verdicts` as the run's thresholds read them, and the `features_<px>` tables.
Out:   nothing, or a `ValueError` that names pictures.
Rerun: reads only.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipeline.config import RunConfig
from pipeline.feature_tables import alignment_of, name_of, source_size
from pipeline.tables import Manifest, read
from pipeline.verdicts import judged

NAMED = 3


def require_features(config: RunConfig, upstream: Mapping[str, Manifest]) -> None:
    """ValueError where the student would not see a picture that was accepted, or see another."""
    assert config.student is not None
    if not {"images", "verdicts"} <= upstream.keys():
        return  # features that were handed over without what they were made of
    table = judged(config, upstream)
    accepted = table.filter(table["accepted"])
    tables = upstream["features"].snapshots
    for size in sorted({phase.image_size for phase in config.student.phases}):
        mask = accepted["width"].to_numpy() == source_size(config, size)
        drawn = accepted.filter(pa.array(mask, pa.bool_()))
        wanted = set(_column(drawn, "image_id"))
        names = [name_of(size), *([alignment_of(size)] if config.student.model.repa else [])]
        for name in names:
            if name not in tables:
                raise ValueError(f"{name} is not among the tables of features: {sorted(tables)}")
            there = read(config.root, tables[name], ["image_id"], check=False)
            found = set(_column(there, "image_id"))
            _refuse(name, "accepted pictures have no features", wanted - found)
            _refuse(name, "pictures have features and are not accepted", found - wanted)


def _column(table: pa.Table, name: str) -> Sequence[object]:
    values: list[object] = table[name].to_pylist()
    return values


def _refuse(name: str, what: str, ids: set[object]) -> None:
    if ids:
        some = ", ".join(sorted(map(str, ids))[:NAMED])
        more = ", ..." if len(ids) > NAMED else ""
        raise ValueError(
            f"{name}: {len(ids)} {what} ({some}{more}); make the stage features again with "
            "force=true"
        )
