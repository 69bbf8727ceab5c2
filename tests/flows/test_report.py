"""Every number of the debug run's report, counted again straight from its tables."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flows.handed import manifest_of
from pipeline.config import RunConfig, load_run
from pipeline.preflight import SECTIONS
from pipeline.tables import Manifest, read
from tests.flows.conftest import FIRST_REPORT

pytestmark = pytest.mark.slow
Counts = tuple[int, int, Counter[str]]  # rows in, kept, rejected by reason


@pytest.fixture(scope="module")
def report(made: tuple[Path, Any]) -> dict[str, Any]:
    return json.loads((made[0].parent / FIRST_REPORT).read_text("utf-8"))


@pytest.fixture(scope="module")
def tables(made: tuple[Path, Any]) -> dict[str, pa.Table]:
    """Every table of the run by name; the evaluation's has its stage's name."""
    run, handed = made
    config = load_run(run)
    return {
        name: read(config.root, snapshot)
        for manifest in manifests(config, handed).values()
        for name, snapshot in manifest.snapshots.items()
    }


def manifests(config: RunConfig, handed: Any) -> dict[str, Manifest]:
    return {stage: manifest_of(config, each) for stage, each in handed.items()}


def counted(reasons: list[str]) -> Counts:
    """Of rows whose reason is "" when they were kept."""
    wrong = Counter(reason for reason in reasons if reason)
    return len(reasons), len(reasons) - wrong.total(), wrong


def expected(config: RunConfig, tables: dict[str, pa.Table]) -> dict[str, Counts]:
    """In, kept and rejected of each stage, from the tables alone."""
    rows = {name: table.to_pylist() for name, table in tables.items()}
    assert config.verdicts
    verdicts = {
        row["image_id"]: ""
        if row["reason"] not in ("not drawn", "does not decode")
        and row["alignment"] >= config.verdicts.min_alignment
        and row["quality"] >= config.verdicts.min_quality
        else row["reason"] or "low alignment"
        for row in rows["verdicts"]
    }
    pairs = [row["reason"] for row in rows["preferences"]]
    trained = len(rows["features_64"]) + len(rows["features_128"])
    return {
        "captions": counted([row["reason"] for row in rows["captions"]]),
        "images": counted([row["reason"] for row in rows["images"]]),
        "verdicts": counted(list(verdicts.values())),
        "features": counted(list(verdicts.values())),  # both sizes of the run are encoded
        "student": (trained, trained, Counter()),
        "preferences": counted(pairs),
        "dpo": (pairs.count(""), pairs.count(""), Counter()),
        "evaluate": counted([row["reason"] for row in rows["evaluate"]]),
    }


def test_the_counts_of_every_stage_are_those_of_its_tables(
    made: tuple[Path, Any], report: dict[str, Any], tables: dict[str, pa.Table]
) -> None:
    given = {
        stage: (each["rows_in"], each["kept"], Counter(each["reasons"]))
        for stage, each in report["stages"].items()
    }
    assert given == expected(load_run(made[0]), tables)
    for stage, each in report["stages"].items():
        assert each["rows_in"] == each["kept"] + each["rejected"], stage
        assert each["rejected"] == sum(each["reasons"].values()), stage


def test_rows_go_from_stage_to_stage_and_none_is_lost(tables: dict[str, pa.Table]) -> None:
    kept = tables["captions"].filter(tables["captions"]["keep"])["caption_id"].to_pylist()
    images = tables["images"]
    assert set(images["caption_id"].to_pylist()) == set(kept)
    assert images["image_id"].equals(tables["verdicts"]["image_id"])
    encoded = [
        name for size in (64, 128) for name in tables[f"features_{size}"]["image_id"].to_pylist()
    ]
    assert len(encoded) == len(set(encoded))
    assert set(encoded) <= set(images["image_id"].to_pylist())
    texts = tables["text"]["caption_id"].to_pylist()
    accepted = {
        caption
        for caption, image in zip(
            images["caption_id"].to_pylist(), images["image_id"].to_pylist(), strict=True
        )
        if image in set(encoded)
    }
    assert sorted(texts) == sorted(accepted)


def test_the_scores_are_shares_of_the_rows(
    report: dict[str, Any], tables: dict[str, pa.Table]
) -> None:
    answers: dict[str, dict[str, list[bool]]] = {}
    for row in tables["evaluate"].to_pylist():
        answers.setdefault(row["checkpoint"], {}).setdefault(row["task"], []).append(row["correct"])
    assert list(report["scores"]) == list(answers) == ["untrained", "student", "aligned"]
    for checkpoint, tasks in answers.items():
        given = dict(report["scores"][checkpoint])
        shares = {task: sum(each) / len(each) for task, each in tasks.items()}
        assert given.pop("mean") == pytest.approx(sum(shares.values()) / 6)
        assert given == shares


def test_tables_made_reused_and_totals_add_up(
    made: tuple[Path, Any], report: dict[str, Any]
) -> None:
    run, handed = made
    config = load_run(run)
    for stage, manifest in manifests(config, handed).items():
        each = report["stages"][stage]
        assert each["checkpoints"] == manifest.checkpoints
        tables = {
            name: {
                "table": snapshot.table,
                "version": snapshot.version,
                "rows": len(read(config.root, snapshot)),
                "content": snapshot.content,
            }
            for name, snapshot in manifest.snapshots.items()
        }
        assert each["tables"] == tables
        rows = sum(table["rows"] for table in tables.values()) or each["rows_in"]
        assert (each["made"], each["reused"]) == (rows, 0), stage
    stages = [report["stages"][stage] for stage in SECTIONS]
    for name, total in report["totals"].items():
        assert total == pytest.approx(sum(each[name] for each in stages), abs=0.01), name
