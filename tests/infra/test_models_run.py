"""The run `models`: captions to features through the full run's own classes, random weights."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline import captions, features, images, preflight, random_models, verdicts
from pipeline.config import RunConfig, load_run
from pipeline.tables import Manifest, read

ANSWER = {"missing": [], "artefacts": [], "words": "noise", "alignment": 6, "quality": 5}


class Judge(BaseHTTPRequestHandler):
    """Stands where vLLM does; the real one is in tests/pipeline/judges/test_vllm.py."""

    def do_GET(self) -> None:
        self.reply({"data": [{"id": "random/qwen2-vl"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.reply({"choices": [{"message": {"content": json.dumps(ANSWER)}}]})

    def reply(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def judge() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(judge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setenv("LIGHTGEN_MODELS_JUDGE", judge)
    weights = tmp_path / "weights"
    random_models.save(weights)
    overrides = {
        "root": str(tmp_path / "artifacts"),
        "images.teacher.repository": str(weights / "flux"),
        "features.autoencoder": str(weights / "flux"),
        "features.text_encoder": str(weights / "t5"),
        "captions.sources.0.num_captions": 12,
    }
    return load_run("models", overrides)


def made(stage, config: RunConfig, upstream: dict[str, Manifest]) -> Manifest:
    shards = [
        shard
        for work in stage.plan(config, upstream)
        for shard in stage.make(config, upstream, work, lambda rows: None)
    ]
    return stage.commit(config, upstream, shards)


def test_the_data_stages_go_through_the_real_classes(run: RunConfig) -> None:
    assert preflight.missing(run, ["captions", "images", "verdicts", "features"]) == []
    upstream: dict[str, Manifest] = {}
    for stage in (captions, images, verdicts, features):
        upstream[stage.STAGE] = made(stage, run, upstream)
        shown = stage.describe(run, upstream, upstream[stage.STAGE])
        assert shown.kept > 0, stage.STAGE
    drawn = read(run.root, upstream["images"].snapshots["images"])
    assert set(drawn["pipeline"].to_pylist()) == {"FluxPipeline"}
    assert {data[:2] for data in drawn["image"].to_pylist()} == {b"\xff\xd8"}  # JPEG
    said = read(run.root, upstream["verdicts"].snapshots["verdicts"])
    assert set(said["words"].to_pylist()) == {"noise"}
    encoded = upstream["features"].snapshots["features_64"]
    assert encoded.rows == drawn.num_rows == 2 * 12


def test_random_models_are_the_same_from_the_same_seed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        random_models.save(tmp_path / name)
    files = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        twin = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == twin.read_bytes(), path.name
