import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import captions
from pipeline.config import RewriterConfig, RunConfig
from pipeline.rewriter import Rewriter, fits, missing_endpoints, parse_answer
from pipeline.tables import read
from pipeline.wording import normalise

MORE = "in the warm light of a late summer evening, on a lawn before an old brick house with roses"


def completion(content: object) -> str:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


class Server(ThreadingHTTPServer):
    """Lengthens every caption by the same words, or misbehaves as it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict] = []
        self.instead: list[tuple[int, str]] = []  # answers given before the good ones

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"data": [{"id": "writer"}]}))

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(request)
        if self.server.instead:
            self.reply(*self.server.instead.pop(0))
            return
        prompt = request["messages"][0]["content"]
        caption = prompt.partition("Caption: ")[2].partition("\n")[0]
        self.reply(200, completion(json.dumps({"caption": f"{caption} {MORE}"})))

    def reply(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    threading.Thread(target=one.serve_forever, args=[0.02], daemon=True).start()
    yield one
    one.shutdown()
    one.server_close()


def config(server: Server, **values) -> RewriterConfig:
    given = {"model": "writer", "requests_in_flight": 3, "share": 1.0, **values}
    return RewriterConfig(endpoints=(server.endpoint,), **given)


def test_captions_are_lengthened_in_order(server: Server) -> None:
    asked = [f"a red cat {number}" for number in range(7)]
    answers = Rewriter(config(server)).rewrite(asked, 2000)
    assert answers == [f"{caption} {MORE}" for caption in asked]
    schema = server.asked[0]["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["caption"]
    assert server.asked[0]["temperature"] == 0


@pytest.mark.parametrize(
    "first",
    [
        (429, "later"),
        (503, "<html>busy</html>"),
        (500, ""),
        (200, "<html>"),
        (200, '{"choices": ['),
    ],
)
def test_a_busy_server_is_asked_again(server: Server, first: tuple[int, str]) -> None:
    server.instead = [first] * 2
    assert Rewriter(config(server), 0.01).rewrite(["a cat"], 2000) == [f"a cat {MORE}"]
    assert len(server.asked) == 3


def test_a_server_that_stays_away_or_refuses_is_an_error(server: Server) -> None:
    server.instead = [(400, "no such model")]
    values = config(server, patience_seconds=0.2)
    with pytest.raises(ValueError, match="400 no such model"):
        Rewriter(values, 0.01).rewrite(["a cat"], 2000)
    server.shutdown()
    server.server_close()
    with pytest.raises(ValueError, match="ConnectError"):
        Rewriter(values, 0.01).rewrite(["a cat"], 2000)


@pytest.mark.parametrize(
    "answer",
    [
        completion("I cannot."),
        completion('{"caption": "a dog"}'),
        completion('{"cap'),
        completion(None),
    ],
)
def test_an_answer_that_is_none_leaves_the_caption_alone(server: Server, answer: str) -> None:
    server.instead = [(200, answer)]
    assert Rewriter(config(server)).rewrite(["a red cat"], 2000) == [None]


def test_a_longer_caption_keeps_what_the_short_one_names() -> None:
    values = RewriterConfig(model="m", endpoints=("e",))
    assert fits("two red cats", f"two red cats {MORE}", values, 2000)
    assert not fits("two red cats", f"two blue cats {MORE}", values, 2000)
    assert not fits("two red cats", f"red cats {MORE}", values, 2000)
    assert not fits("two red cats", "two red cats", values, 2000)
    assert not fits("two red cats", f"two red cats {MORE}", values, 50)
    assert not fits("two red cats", f"two red cats {MORE * 8}", values, 2000)


@given(st.text() | st.text(st.characters()).map(lambda said: json.dumps({"caption": said})))
def test_any_answer_is_read(said: str) -> None:
    answer = parse_answer(said)
    assert answer == normalise(answer.encode().decode())


def test_a_share_is_chosen_by_hash() -> None:
    ids = [f"{number:016x}" for number in range(2000)]
    rewriter = Rewriter(RewriterConfig(model="m", endpoints=("e",), share=0.3))
    chosen = [rewriter.chooses(each) for each in ids]
    assert 500 < sum(chosen) < 700
    assert chosen == [rewriter.chooses(each) for each in ids]


def test_preflight_tells_what_is_not_served(server: Server) -> None:
    assert missing_endpoints(config(server)) == []
    assert "serves ['writer'], not 'other'" in missing_endpoints(config(server, model="other"))[0]
    assert (
        "does not answer" in missing_endpoints(RewriterConfig(model="m", endpoints=("nowhere",)))[0]
    )


def test_the_stage_keeps_the_original_beside_the_rewritten(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"a red cat\na red cat\n{MORE}\nx\n")
    given = {"kind": "files", "name": "a", "paths": [str(path)], "format": "text", "licence": "MIT"}
    values = {"sources": [given], "long_words": 10, "rewriter": config(server).model_dump()}
    run = RunConfig.model_validate({"name": "t", "root": str(tmp_path / "r"), "captions": values})
    (work,) = captions.plan(run, {})
    shards = captions.make(run, {}, work, lambda rows: None)
    manifest = captions.commit(run, {}, shards)
    rows = read(run.root, manifest.snapshots["captions"]).to_pylist()
    assert [(row["caption"], row["original"], row["kind"]) for row in rows] == [
        (f"a red cat {MORE}", "a red cat", "long"),
        ("a red cat", "", "short"),
        (MORE, "", "long"),
        ("x", "", "short"),
    ]
    assert len({row["caption_id"] for row in rows[:3]}) == 3
    assert captions.describe(run, {}, manifest).facts["rewritten"] == "1 by writer"
