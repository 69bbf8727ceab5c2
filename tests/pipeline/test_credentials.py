"""A secret is taken from the environment, never from a run, and is masked where people read."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.config import QwenJudge, load_run
from pipeline.credentials import credential, is_secret, mask_logs, masked
from pipeline.judges import missing
from pipeline.judges.servers import Servers

KEY = "planted-3f9c1d77"


class Locked(BaseHTTPRequestHandler):
    """Serves who has the key, and says the key back."""

    def do_GET(self) -> None:
        self.reply(json.dumps({"data": [{"id": "qwen"}]}))

    def do_POST(self) -> None:
        self.reply(f"you said {self.headers['authorization']}")

    def reply(self, body: str) -> None:
        self.send_response(200 if self.headers["authorization"] == f"Bearer {KEY}" else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def secured() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Locked)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("HF_TOKEN", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("PREFECT_API_AUTH_STRING", True),
        ("PREFECT_API_DATABASE_CONNECTION_URL", True),
        ("lightgen_judge_key", True),
        ("LIGHTGEN_DATA", False),
        ("PATH", False),
        ("KEYBOARD", False),
    ],
)
def test_a_secret_is_known_by_its_name(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


def test_a_named_variable_that_is_not_there_is_a_sentence(monkeypatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    assert credential(None, "x") is None
    with pytest.raises(ValueError, match=r"verdicts\.judge\.api_key_variable: JUDGE_KEY, but"):
        credential("JUDGE_KEY", "verdicts.judge.api_key_variable")
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}\n")
    assert credential("JUDGE_KEY", "x") == KEY


def test_every_secret_is_masked_the_longer_first(monkeypatch) -> None:
    monkeypatch.setenv("ONE_TOKEN", KEY)
    monkeypatch.setenv("TWO_TOKEN", f"{KEY}-and-more")
    monkeypatch.setenv("SHORT_KEY", "on")  # would mask words
    text = f"{KEY}, {KEY}-and-more; on it: http://user:pw@host/x"
    assert masked(text) == "<ONE_TOKEN>, <TWO_TOKEN>; on it: http://<user>@host/x"
    assert masked("") == ""


def test_no_log_record_holds_one(monkeypatch, caplog) -> None:
    before = logging.getLogRecordFactory()
    monkeypatch.setenv("ONE_TOKEN", KEY)
    try:
        mask_logs()
        mask_logs()  # once is enough
        logging.getLogger("pipeline.some").warning("sent %s to %d%%", KEY, 7)
        logging.getLogger("elsewhere").warning("100% plain")
    finally:
        logging.setLogRecordFactory(before)
    assert caplog.messages == ["sent <ONE_TOKEN> to 7%", "100% plain"]


def test_a_run_takes_no_secret_in(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONE_TOKEN", KEY)
    run = tmp_path / "odd.yaml"
    run.write_text("name: ${ONE_TOKEN:-none}\n")
    with pytest.raises(ValueError, match=r"odd\.yaml: \$\{ONE_TOKEN\} is a secret") as error:
        load_run(run)
    assert KEY not in str(error.value)


def test_an_address_holds_no_password() -> None:
    override = {"verdicts.judge.endpoints": ["http://me:planted@127.0.0.1:8001/v1"]}
    with pytest.raises(ValueError, match="an address holds no user or key") as error:
        load_run("full", override)
    assert "planted" not in str(error.value)


def test_a_server_is_sent_the_key_and_what_it_sends_back_is_masked(secured, monkeypatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    config = QwenJudge(
        kind="qwen_vl", model="qwen", endpoints=(secured,), api_key_variable="JUDGE_KEY"
    )
    assert missing(config) == []
    assert Servers(config, str).ask(b"{}") == "you said Bearer <JUDGE_KEY>"
    monkeypatch.setenv("JUDGE_KEY", "another-key")
    (wrong,) = missing(config)
    assert "wants another key (401)" in wrong
