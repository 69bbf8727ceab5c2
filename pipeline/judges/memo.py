"""Answers that a judge has given already, on disk, by the hash of the whole request.

In:    a file; requests as bytes.
Out:   the answer of an equal request, or None.
Rerun: a killed shard finds its answers here and asks only for the rest. Any number of threads and
       processes may share the file.
"""

import hashlib
import sqlite3
import threading
from pathlib import Path

WAIT_SECONDS = 60.0  # for another process that writes


class Memo:
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.store = sqlite3.connect(
            path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        # A log ahead of the file: one process writes while others read, and a kill loses nothing.
        self.store.execute("PRAGMA journal_mode=WAL")
        self.store.execute("PRAGMA synchronous=NORMAL")
        self.store.execute(
            "CREATE TABLE IF NOT EXISTS answers (request BLOB PRIMARY KEY, answer TEXT) "
            "WITHOUT ROWID"
        )

    def get(self, request: bytes) -> str | None:
        with self.lock:
            row = self.store.execute(
                "SELECT answer FROM answers WHERE request = ?", [_key(request)]
            ).fetchone()
        return None if row is None else str(row[0])

    def put(self, request: bytes, answer: str) -> None:
        with self.lock:
            self.store.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", [_key(request), answer]
            )

    def close(self) -> None:
        with self.lock:
            self.store.close()


def _key(request: bytes) -> bytes:
    return hashlib.sha256(request).digest()
