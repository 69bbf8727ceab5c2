"""Who makes a row: the code and the packages of this process.

In:    the source files of the rooms that shape bytes, git where it is there, installed packages.
Out:   names and versions, by value.
Rerun: read once a process.
"""

import hashlib
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.seals import sha256_of

SOURCES = Path(__file__).parent.parent
ROOMS = ("lightgen_model", "pipeline")  # the code that shapes bytes
PACKAGES = (  # whose versions may change the last bit of a row
    "torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "pyarrow",
    "pylance", "pillow", "open-clip-torch", "scikit-learn", "rensa", "httpx",
)  # fmt: skip


@cache
def maker() -> dict[str, str]:
    """The code and the packages of this process."""
    facts = {"code": code_version(), "commit": _commit(), "python": platform.python_version()}
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return {name: fact for name, fact in facts.items() if fact}


@cache
def code_version() -> str:
    """Sixteen hex digits of every source file that shapes bytes."""
    total = hashlib.sha256()
    for path in sorted(p for room in ROOMS for p in (SOURCES / room).rglob("*.py")):
        total.update(f"{path.relative_to(SOURCES)}:{sha256_of(path)}\n".encode())
    return total.hexdigest()[:16]


def _commit() -> str:
    """The commit of this checkout, with a mark where files differ from it; "" without git."""
    said = []
    for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(
                ["git", "-C", str(SOURCES), *words], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return ""
        if done.returncode:
            return ""
        said.append(done.stdout.strip())
    return f"{said[0]}{' with changes' if said[1] else ''}"
