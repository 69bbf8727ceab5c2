"""A planted secret: it opens the judge's server and is found nowhere afterwards."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client

from flows.dataset import captions, images, verdicts

KEY = "planted-8be2a4c0-never-to-be-seen"


class Indiscreet(BaseHTTPRequestHandler):
    """A judge behind a key, which says the key in its errors and in its answers."""

    asked = 0

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"data": [{"id": "qwen"}]}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        Indiscreet.asked += 1
        key = self.headers["authorization"]
        assert key == f"Bearer {KEY}"
        answer = {"missing": [key], "artefacts": [], "words": key, "alignment": 9, "quality": 8}
        choice = {"message": {"role": "assistant", "content": json.dumps(answer)}}
        broken = Indiscreet.asked % 5 == 0
        self.reply(500 if broken else 200, key if broken else json.dumps({"choices": [choice]}))

    def reply(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Indiscreet)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def judged(write_run: Any, endpoint: str, tmp_path: Path) -> Path:
    """The debug run with a judge behind a key."""
    path: Path = write_run(tmp_path)
    values = yaml.safe_load(path.read_text())
    values["verdicts"]["judge"] = {
        "kind": "qwen_vl", "model": "qwen", "endpoints": [endpoint],
        "api_key_variable": "JUDGE_API_KEY",
    }  # fmt: skip
    path.write_text(yaml.safe_dump(values))
    return path


def told() -> str:
    """All that the server keeps: states, parameters, artifacts, logs."""
    with get_client(sync_client=True) as client:
        filters = {"limit": 200}
        places = ("flow_runs", "task_runs", "artifacts", "logs")
        return "".join(client.request("POST", f"/{p}/filter", json=filters).text for p in places)


def test_a_planted_key_is_used_and_never_kept(
    server: dict[str, str], judged: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", KEY)
    for stage in (captions, images, verdicts):
        stage(run=str(judged))
    assert Indiscreet.asked > 48
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    kept += [p for p in Path(server["PREFECT_LOCAL_STORAGE_PATH"]).rglob("*") if p.is_file()]
    holding = [str(path) for path in kept if KEY.encode() in path.read_bytes()]
    assert holding == []
    assert any(b"Bearer <JUDGE_API_KEY>" in path.read_bytes() for path in kept)  # as it was said
    assert KEY not in told()
