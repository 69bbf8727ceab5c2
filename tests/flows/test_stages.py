"""A stage with a shard that cannot be made: it fails at the end, or goes on without by value."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.dataset import captions, images, verdicts
from pipeline import plugins
from pipeline.config import load_run
from pipeline.description import Description
from pipeline.quarantine import REASON, ShardsQuarantined
from pipeline.tables import read
from pipeline.upstream import found_of

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """48 captions, 3 shards a stage; a caption of the second one cannot be drawn."""
    monkeypatch.setenv(plugins.ALLOWED, "tests")
    values = {"file": str(tmp_path / "refused.txt")}
    path = "tests.flows.shaky:ShakyTeacher"
    teacher = {"kind": "plugin", "path": path, "licence": "MIT", "values": values}
    run = {
        "name": "shaky",
        "root": str(tmp_path / "artifacts"),
        "engine": {"retries": 1, "retry_seconds": 0},
        "captions": {"sources": [{"kind": "shapes", "num_captions": 48}], "rows_per_shard": 16},
        "images": {"teacher": teacher, "image_sizes": [64]},
        "verdicts": {"judge": {"kind": "shapes"}},
    }
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(run))
    captions(run=str(file))
    rows = captions_of(str(file))
    (tmp_path / "refused.txt").write_text(rows[20], "utf-8")
    return str(file)


def captions_of(run: str) -> list[str]:
    config = load_run(run)
    table = read(config.root, found_of(config, "captions")["captions"].snapshots["captions"])
    return list(table["caption"].to_pylist())


def described(run: str, stage: str) -> Description:
    (folder,) = Path(load_run(run).root).glob(f"descriptions/{stage}-*")
    return Description.load(folder)


def made(handed: Any) -> int:
    return int(handed["timing"]["made"])


def test_a_stage_fails_after_all_others_are_made_and_the_next_run_tries_just_the_one(
    run: str, tmp_path: Path
) -> None:
    with pytest.raises(ShardsQuarantined, match=r"1 shard quarantined, 16 rows.*fell off the bus"):
        images(run=run)
    assert len(list(tmp_path.glob("artifacts/tables/images-*/data/*.lance"))) == 2
    with get_client(sync_client=True) as client:
        named = ArtifactFilter(key=ArtifactFilterKey(any_=["shaky-images-quarantined"]))
        assert client.read_artifacts(artifact_filter=named)
    (tmp_path / "refused.txt").unlink()
    assert made(images(run=run)) == 16
    assert described(run, "images").rows_in == 48


def test_a_stage_goes_on_without_a_shard_where_the_run_allows_it(run: str, tmp_path: Path) -> None:
    allowed = {"engine.max_quarantined": 1}
    assert made(images(run=run, overrides=allowed)) == 32
    shown = described(run, "images")
    assert (shown.rows_in, shown.kept, shown.reasons[REASON]) == (48, 32, 16)
    assert "fell off the bus" in shown.markdown()
    assert made(verdicts(run=run, overrides=allowed)) == 32
    (tmp_path / "refused.txt").unlink()
    assert made(images(run=run)) == 16
    assert made(verdicts(run=run)) == 16
    assert made(images(run=run)) == 0


def test_a_gap_is_tried_again_though_the_version_without_it_is_there(run: str) -> None:
    allowed = {"engine.max_quarantined": 1}
    first: Any = images(run=run, overrides=allowed)
    again: Any = images(run=run, overrides=allowed)
    assert first["manifest"] == again["manifest"]
    assert made(again) == 0
    with pytest.raises(ShardsQuarantined, match=r"engine.max_quarantined \(it is 0\)"):
        images(run=run)
