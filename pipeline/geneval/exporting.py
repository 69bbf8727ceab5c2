"""A run's own pictures in GenEval's layout, for anyone's scorer.

In:    a run whose evaluation has a GenEval evaluator; the name of a checkpoint.
Out:   GenEval's folder (`pipeline.geneval.folders`), with the bytes of the table's PNG files.
Rerun: writes the prompts that are not there yet.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import evaluation
from pipeline.config import RunConfig
from pipeline.geneval.folders import write_folder
from pipeline.geneval.prompts import Request, parse
from pipeline.tables import Manifest, Snapshot, read, take
from pipeline.upstream import resolve

KEYS = ("evaluator", "checkpoint", "prompt_index", "image_index")


def export_run(config: RunConfig, checkpoint: str, folder: Path, evaluator: str) -> tuple[int, int]:
    """Prompts written, and prompts that are there then."""
    manifest = evaluation.find(config, resolve(config, evaluation.STAGE))
    if manifest is None:
        raise ValueError(
            f"the evaluation of run {config.name!r} is not made for these values yet: "
            f"prefect deployment run evaluate/{config.name}"
        )
    return export(config, manifest, checkpoint, folder, evaluator)


def export(
    config: RunConfig, manifest: Manifest, checkpoint: str, folder: Path, evaluator: str
) -> tuple[int, int]:
    snapshot = manifest.snapshots[evaluation.STAGE]
    rows = _rows(read(config.root, snapshot, KEYS, check=False), checkpoint, evaluator)
    return write_folder(folder, _prompts(config.root, snapshot, rows)), len(rows)


def _rows(table: pa.Table, checkpoint: str, evaluator: str) -> dict[int, list[int]]:
    """Numbers of the rows of each prompt, in the order of its pictures."""
    here = pc.and_(
        pc.equal(table["evaluator"], evaluator), pc.equal(table["checkpoint"], checkpoint)
    )
    numbered = table.append_column("row", pa.array(range(len(table)), pa.int64())).filter(here)
    if not len(numbered):
        there = sorted(
            set(zip(table["evaluator"].to_pylist(), table["checkpoint"].to_pylist(), strict=True))
        )
        raise ValueError(f"no pictures of {evaluator} by {checkpoint!r}; there are {there}")
    ordered = numbered.sort_by([("prompt_index", "ascending"), ("image_index", "ascending")])
    rows: dict[int, list[int]] = {}
    for row in ordered.select(["prompt_index", "row"]).to_pylist():
        rows.setdefault(row["prompt_index"], []).append(row["row"])
    return rows


def _prompts(
    root: str, snapshot: Snapshot, rows: dict[int, list[int]]
) -> Iterator[tuple[int, Request, Sequence[bytes]]]:
    for index, numbers in rows.items():
        taken = take(root, snapshot, numbers, ["image", "details", "prompt"])
        details = taken["details"][0].as_py()
        if not details:
            raise ValueError(f"prompt {index} has no GenEval row: its evaluator is another")
        request = parse(json.loads(details)["metadata"], f"prompt {index}")
        yield index, request, taken["image"].to_pylist()
