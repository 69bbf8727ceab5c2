import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.config import QwenJudge
from pipeline.judges import build, missing
from pipeline.judges.qwen_vl import QwenVlJudge, parse_answer

GOOD = {"missing": [], "artefacts": [], "alignment": 9, "quality": 8.5}


def completion(content: object) -> str:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


class Server(ThreadingHTTPServer):
    """Speaks as much of the OpenAI format as a vLLM server does for one request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict] = []
        self.failures: list[int] = []  # statuses to answer with before the good answers

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"object": "list", "data": [{"id": "qwen"}]}))

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests.append(request)
        if self.server.failures:
            self.reply(self.server.failures.pop(), "not now")
            return
        width = picture_of(request).width
        self.reply(200, completion(json.dumps({**GOOD, "artefacts": [f"width {width}"]})))

    def reply(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None: ...


def picture_of(request: dict) -> Image.Image:
    url = request["messages"][0]["content"][0]["image_url"]["url"]
    prefix, _, encoded = url.partition(",")
    assert prefix == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    pair = [Server(), Server()]
    for server in pair:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield pair
    for server in pair:
        server.shutdown()
        server.server_close()


def config(servers: list[Server], **values) -> QwenJudge:
    endpoints = tuple(server.endpoint for server in servers)
    given = {"model": "qwen", "requests_in_flight": 4, **values}
    return QwenJudge(kind="qwen_vl", endpoints=endpoints, **given)


def test_pictures_are_judged_in_order_by_all_servers(servers: list[Server]) -> None:
    images = [Image.new("RGB", (width, 60)) for width in range(60, 72)]
    verdicts = build(config(servers)).judge(images, ["a cat"] * 12)
    assert [verdict.words for verdict in verdicts] == [f"width {w}" for w in range(60, 72)]
    assert {(one.alignment, one.quality, one.reason) for one in verdicts} == {
        (0.9, 0.85, "artefacts")
    }
    assert [len(server.requests) for server in servers] == [6, 6]


def test_the_request_asks_for_json_and_a_small_picture(servers: list[Server]) -> None:
    build(config(servers[:1], max_pixels=4000)).judge([Image.new("RGBA", (400, 100))], ["a cat"])
    (request,) = servers[0].requests
    assert picture_of(request).size == (126, 31)
    assert request["temperature"] == 0
    assert "a cat" in request["messages"][0]["content"][1]["text"]
    schema = request["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == {"missing", "artefacts", "alignment", "quality"}


def test_a_busy_server_is_asked_again(servers: list[Server]) -> None:
    servers[0].failures = [503, 429]
    judge = QwenVlJudge(config(servers[:1]), retry_seconds=0.01)
    (verdict,) = judge.judge([Image.new("RGB", (60, 60))], ["a cat"])
    assert verdict.alignment == 0.9
    assert len(servers[0].requests) == 3


def test_a_dead_server_leaves_its_share_to_the_others(servers: list[Server]) -> None:
    servers[1].shutdown()
    servers[1].server_close()
    judge = QwenVlJudge(config(servers), retry_seconds=0.01)
    verdicts = judge.judge([Image.new("RGB", (60, 60))] * 4, ["a cat"] * 4)
    assert [verdict.alignment for verdict in verdicts] == [0.9] * 4


def test_a_refused_request_is_an_error_with_the_servers_words(servers: list[Server]) -> None:
    servers[0].failures = [400]
    with pytest.raises(ValueError, match=r"refused the request: 400 not now"):
        build(config(servers[:1])).judge([Image.new("RGB", (60, 60))], ["a cat"])


def test_preflight_tells_what_is_not_served(servers: list[Server]) -> None:
    assert missing(config(servers)) == []
    (wrong,) = missing(config(servers[:1], model="other"))
    assert "serves ['qwen'], not 'other'" in wrong
    servers[1].shutdown()
    servers[1].server_close()
    (silent,) = missing(config(servers))
    assert "does not answer" in silent
    assert f"vllm serve qwen --host 127.0.0.1 --port {servers[1].server_address[1]}" in silent


@pytest.mark.parametrize("endpoint", ["nowhere", "http://127.0.0.1:9/v1", "http://[::1/v1", ""])
def test_an_odd_endpoint_is_a_sentence(endpoint: str) -> None:
    (sentence,) = missing(QwenJudge(kind="qwen_vl", model="m", endpoints=(endpoint,)))
    assert "does not answer" in sentence


def test_good_answers_are_read_in_a_fence_and_after_words() -> None:
    for content in (
        json.dumps(GOOD),
        f"```json\n{json.dumps(GOOD)}\n```",
        f"So: {json.dumps(GOOD)}",
    ):
        verdict = parse_answer(completion(content))
        assert (verdict.alignment, verdict.quality, verdict.reason) == (0.9, 0.85, "")
    lacking = parse_answer(completion(json.dumps({**GOOD, "missing": ["the hat"]})))
    assert (lacking.words, lacking.reason) == ("lacks the hat", "missing or wrong content")


@pytest.mark.parametrize(
    "change", [{"alignment": 11}, {"quality": -1}, {"quality": "8"}, {"alignment": True},
               {"alignment": float("nan")}, {"missing": "hat"}, {"quality": None}]
)  # fmt: skip
def test_scores_outside_the_scale_are_unparsable(change: dict) -> None:
    verdict = parse_answer(completion(json.dumps({**GOOD, **change})))
    assert (verdict.alignment, verdict.quality, verdict.reason) == (0, 0, "unparsable answer")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.text(st.characters())
    | JSON.map(json.dumps)
    | JSON.map(completion)
    | st.text(st.characters()).map(completion)
    | st.dictionaries(st.sampled_from(list(GOOD)), JSON).map(json.dumps).map(completion)
)
def test_any_answer_gives_a_verdict_that_a_table_can_hold(body: str) -> None:
    verdict = parse_answer(body)
    assert 0 <= verdict.alignment <= 1
    assert 0 <= verdict.quality <= 1
    verdict.words.encode()


def test_a_deeply_nested_answer_is_unparsable() -> None:
    deep = '{"missing": ' + "[" * 100_000
    assert parse_answer(completion(deep + "}")).reason == "unparsable answer"
    assert parse_answer("[" * 100_000).reason == "unparsable answer"
    assert parse_answer('{"choices": [{"message": {"content": "\ud800"}}]}').words
