"""A local server of the OpenAI format that can be told to misbehave."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from pipeline.config import QwenJudge

GOOD = {"missing": [], "artefacts": [], "words": "", "alignment": 9, "quality": 8}


def completion(content: object, **values: object) -> str:
    choice = {"message": {"role": "assistant", "content": content}, **values}
    return json.dumps({"choices": [choice]})


class Server(ThreadingHTTPServer):
    """Answers as a vLLM server does; first as `script` says, an entry a request.

    An entry is a status, a status with its Retry-After, seconds of silence, or a body; "cut"
    closes the connection in the middle of one, "drip" sends a letter now and then, "flood" no end.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict] = []
        self.script: list[int | tuple[int, str] | float | str] = []
        self.answer: Callable[[dict], str] = by_width
        self.busy_until = 0.0
        self.now = self.most = 0  # requests in flight
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: object) -> None: ...  # a client that has gone


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"object": "list", "data": [{"id": "qwen"}]}))

    def do_POST(self) -> None:
        with self.server.lock:
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            self.respond()
        finally:
            with self.server.lock:
                self.server.now -= 1

    def respond(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.requests.append(request)
            entry = self.server.script.pop(0) if self.server.script else None
        if time.monotonic() < self.server.busy_until:
            entry = (429, "1")
        match entry:
            case None:
                self.reply(200, self.server.answer(request))
            case int():
                self.reply(entry, "not now")
            case (status, seconds):
                self.reply(status, "later", {"retry-after": seconds})
            case float():
                time.sleep(entry)
                self.reply(200, self.server.answer(request))
            case "cut":
                self.reply(200, self.server.answer(request)[:20], {"content-length": "900"})
                self.close_connection = True
            case "drip" | "flood":
                self.reply(200, "", {"content-length": "900000000"})
                piece, pause = (b" ", 0.05) if entry == "drip" else (bytes(2**20), 0.0)
                for _ in range(60):
                    self.wfile.write(piece)
                    time.sleep(pause)
            case _:
                self.reply(200, entry)

    def reply(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        given = {"content-length": str(len(body.encode())), **(headers or {})}
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None: ...


def picture_of(request: dict) -> Image.Image:
    url = request["messages"][0]["content"][0]["image_url"]["url"]
    prefix, _, encoded = url.partition(",")
    assert prefix == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def by_width(request: dict) -> str:
    return completion(json.dumps({**GOOD, "artefacts": [f"width {picture_of(request).width}"]}))


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    pair = [Server(), Server()]
    for server in pair:
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield pair
    for server in pair:
        server.shutdown()
        server.server_close()


@pytest.fixture
def asking() -> Callable[..., QwenJudge]:
    """A config that asks these servers, quickly."""

    def config(servers: list[Server], **values: object) -> QwenJudge:
        endpoints = tuple(server.endpoint for server in servers)
        given = {"model": "qwen", "requests_in_flight": 4, "patience_seconds": 20, **values}
        return QwenJudge(kind="qwen_vl", endpoints=endpoints, **given)

    return config


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """`picture(of=request)` as it was sent, else a plain one of a width."""

    def make(width: int = 60, of: dict | None = None) -> Image.Image:
        return picture_of(of) if of else Image.new("RGB", (width, 60))

    return make
