"""The arrows between the rooms, and what the light parts must not load."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "lightgen_model": {"lightgen_model"},
    "pipeline": {"pipeline", "lightgen_model"},
    "flows": {"flows", "pipeline", "lightgen_model"},
}
HEAVY = ("torch", "diffusers", "transformers", "matplotlib", "accelerate")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_go_one_way(room: str) -> None:
    ours = {*ALLOWED, "tests"}
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files(room)
        for name in imported(path)
        if name.split(".")[0] in ours - ALLOWED[room]
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("package", "door"),
    [
        ("prefect", "flows/"),
        ("lance", "pipeline/tables.py"),
        ("obstore", "pipeline/buckets.py"),
    ],
)
def test_one_door_per_outside_thing(package: str, door: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for room in ALLOWED
        for path in files(room)
        for name in imported(path)
        if name.split(".")[0] == package
    }
    assert users
    assert [user for user in users if not user.startswith(door)] == []


@pytest.mark.parametrize("room", ["pipeline", "flows"])
def test_a_root_is_read_as_what_it_is_never_as_a_folder(room: str) -> None:
    """`Path("s3://bucket/x")` is a folder called `s3:` here, and nobody would be told."""
    wrong = re.compile(r"\bPath\((\w+\.)*(root|first)\)")
    found = [path for path in files(room) if wrong.search(path.read_text("utf-8"))]
    assert [path.relative_to(ROOT).as_posix() for path in found] == ["pipeline/roots.py"][
        : room == "pipeline"
    ]


@pytest.mark.parametrize("room", ALLOWED)
def test_no_drawer(room: str) -> None:
    drawers = ("util", "common", "helper", "misc", "base", "manager", "handler")
    assert [p for p in files(room) if any(word in p.stem.lower() for word in drawers)] == []


@pytest.mark.parametrize(
    "module",
    [
        "flows.distillation",
        "flows.plan",
        "flows.ablation",
        "flows.upkeep",
        "pipeline.preflight",
        "pipeline.plan",
    ],
)
def test_a_flow_process_starts_light(module: str) -> None:
    code = f"import {module}, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
