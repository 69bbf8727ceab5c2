"""How much of the time a judge's server is at work, beside a stand-in of known cost.

    python tests/benchmarks/judging.py [--slots 32] [--seconds 1.0] [--in-flight 64]

The stand-in answers `slots` requests at once, each after `seconds`, in its own process. Reading,
decoding, shrinking, encoding and sending 512 px pictures is what it must not wait for. Prints the
share of its slots that were busy from the first request to the last answer, tails included, beside
the same with each piece of the table judged to its end before the next is begun.
"""

import argparse
import io
import json
import multiprocessing
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.config import QwenJudge
from pipeline.judges.qwen_vl import QwenVlJudge
from pipeline.verdicts import judge_images, judged_pieces

ANSWER = {"missing": [], "artefacts": [], "words": "", "alignment": 9, "quality": 9}
PIECE = 256  # rows, as the table is read


def serve(pipe: Connection, slots: int, seconds: float) -> None:
    """Answers; when asked, tells when each answer since the last time began and ended."""
    free, lock = threading.Semaphore(slots), threading.Lock()
    spans: list[tuple[float, float]] = []
    body = json.dumps({"choices": [{"message": {"content": json.dumps(ANSWER)}}]}).encode()

    class StandIn(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            with free:
                begun = time.monotonic()
                time.sleep(seconds)
                with lock:
                    spans.append((begun, time.monotonic()))
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 1024
        daemon_threads = True

    server = Server(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(server.server_address[1])
    while pipe.recv():
        with lock:
            pipe.send(list(spans))
            spans.clear()


def pictures(number: int) -> list[bytes]:
    """JPEGs of 512 px, as the full run draws them, with a photograph's share of detail."""
    rng, files = np.random.default_rng(0), []
    for _ in range(16):
        coarse = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
        out = io.BytesIO()
        coarse.resize((512, 512), Image.Resampling.BICUBIC).save(out, "JPEG", quality=95)
        files.append(out.getvalue())
    return [files[row % len(files)] for row in range(number)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=1024)
    args = parser.parse_args()
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, args.slots, args.seconds), daemon=True
    )
    child.start()
    config = QwenJudge(
        kind="qwen_vl",
        model="stand-in",
        endpoints=(f"http://127.0.0.1:{here.recv()}/v1",),
        requests_in_flight=args.in_flight,
    )
    names = [str(row) for row in range(args.pictures)]
    columns = {"image_id": names, "caption_id": names, "caption": names, "reason": names}
    columns["image"] = pa.array(pictures(args.pictures), pa.large_binary())  # type: ignore[assignment]
    table = pa.table(columns)
    pieces = [table.slice(first, PIECE) for first in range(0, args.pictures, PIECE)]
    judge = QwenVlJudge(config)
    print("| pictures | slots | the server's best | pieces | judged | slots busy |")
    print("|---:|---:|---:|---|---:|---:|")
    for how in ("in turn", "several begun"):
        if how == "in turn":
            rows = sum(len(judge_images(judge, piece)) for piece in pieces)
        else:
            rows = sum(len(piece) for piece in judged_pieces(judge, iter(pieces)))
        here.send("tell")
        spans = here.recv()
        span = max(end for _, end in spans) - min(begun for begun, _ in spans)
        busy = sum(end - begun for begun, end in spans) / (span * args.slots)
        best = args.slots / args.seconds
        rate = f"{best:.0f}/s | {how} | {rows / span:.1f}/s"
        print(f"| {rows} | {args.slots} | {rate} | {busy:.1%} |", flush=True)
    here.send("")


if __name__ == "__main__":
    main()
