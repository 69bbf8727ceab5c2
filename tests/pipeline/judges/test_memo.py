import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.judges.memo import Memo

PROGRAM = """
import os, sys, pathlib
from pipeline.judges.memo import Memo
memo = Memo(pathlib.Path(sys.argv[1]))
for number in range(50):
    memo.put(f"{sys.argv[2]}{number}".encode(), f"answer {number}")
os.kill(os.getpid(), 9)
"""


def test_an_answer_is_found_by_the_same_request_only(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "new" / "answers.sqlite")
    memo.put(b"one", "yes \u00e9\0")
    assert memo.get(b"one") == "yes \u00e9\0"
    assert memo.get(b"two") is None
    memo.put(b"one", "no")
    assert memo.get(b"one") == "no"


def test_many_threads_share_it(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "answers.sqlite")
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: memo.put(b"%d" % n, str(n)), range(200)))
        found = list(threads.map(lambda n: memo.get(b"%d" % n), range(200)))
    assert found == [str(n) for n in range(200)]


def test_processes_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    children = [subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), name]) for name in "ab"]
    assert [child.wait() for child in children] == [-9, -9]
    memo = Memo(path)
    assert all(memo.get(f"{name}{n}".encode()) == f"answer {n}" for name in "ab" for n in range(50))
    memo.close()
    rows = sqlite3.connect(path).execute("SELECT count(*) FROM answers").fetchone()
    assert rows == (100,)
