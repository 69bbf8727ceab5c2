"""An S3-compatible store for tests: moto's server on loopback, with what a test may do to it.

`python -m tests.pipeline.object_store 127.0.0.1 9000` serves until it is ended.

It behaves as S3 does where moto alone would not: a request whose sender died before its last byte
leaves nothing.
"""

import io
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

Environ = dict[str, Any]


class ObjectStore:
    """`asked` holds what came, as `PUT key`; `conditional` off makes it ignore
    If-None-Match, `forbidden` makes it refuse whoever asks."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        pytest.importorskip("obstore", reason="the extra 's3' is not installed")
        server = pytest.importorskip("moto.server", reason="moto is not installed")
        serving = pytest.importorskip("werkzeug.serving", reason="werkzeug is not installed")
        self.asked: list[str] = []
        self.conditional, self.forbidden = True, False
        self.before: Callable[[str], None] = lambda request: None
        self._app = server.DomainDispatcherApplication(server.create_backend_app)
        self._one = threading.Lock()  # moto looks and writes in two steps
        quiet = type("Quiet", (serving.WSGIRequestHandler,), {"log": lambda *_: None})
        self._server = serving.make_server(
            host, port, self._serve, threaded=True, request_handler=quiet
        )
        self.url = f"http://{host}:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _serve(self, environ: Environ, start: Any) -> Iterable[bytes]:
        key = environ["PATH_INFO"].lstrip("/")
        request = f"{environ['REQUEST_METHOD']} {key}"
        if not self.conditional:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        size = int(environ.get("CONTENT_LENGTH") or 0)
        data = environ["wsgi.input"].read(size // 2)
        self.asked.append(request)
        self.before(request)  # its sender may be killed here, in the middle of its upload
        data += environ["wsgi.input"].read(size - len(data))
        if len(data) < size:
            start("400 IncompleteBody", [])
            return [b""]
        if self.forbidden:
            start("403 Forbidden", [])
            return [b""]
        environ["wsgi.input"] = io.BytesIO(data)
        with self._one:
            return list(self._app(environ, start))

    def variables(self) -> dict[str, str]:
        """The environment of a user of this store."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "planted-secret",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def close(self) -> None:
        self._server.shutdown()


if __name__ == "__main__":
    ObjectStore(sys.argv[1], int(sys.argv[2]))
    threading.Event().wait()
