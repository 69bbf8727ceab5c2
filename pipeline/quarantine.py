"""Quarantine: shards that could not be made, noted beside the tables that lack them.

In:    a root, a stage, the shards that failed and why; the content of the version without them.
Out:   <root>/quarantined/<stage>-<content>.json for a version that was committed without some
       shards; <stage>-pending.json from before the commit until that note is there.
Rerun: a noted version is not taken as whole, so the next run tries those shards again; when all of
       them are made, the note goes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.credentials import masked
from pipeline.disk import writing
from pipeline.seals import read_sealed, write_sealed

REASON = "in a quarantined shard"  # of the rows that were to be in it
MAX_WORDS = 300


@dataclass(frozen=True)
class Quarantined:
    """One shard that was given up."""

    name: str
    rows: int
    tries: int
    reason: str


class ShardsQuarantined(RuntimeError):  # noqa: N818
    """More shards could not be made than the run allows; the sentence names them."""


def reason_of(error: BaseException) -> str:
    """The error in one line that a person can read, and without secrets: it is kept."""
    words = masked(" ".join(f"{type(error).__name__}: {error}".split()))
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 3] + "..."


def sentence(stage: str, given_up: Sequence[Quarantined]) -> str:
    """What became of a stage, for whoever started it."""
    shown = "; ".join(f"{each.name} ({each.reason})" for each in given_up[:5])
    more = f"; and {len(given_up) - 5} more" if len(given_up) > 5 else ""
    count = f"{len(given_up)} shard{'s' if len(given_up) > 1 else ''} quarantined"
    rows = sum(each.rows for each in given_up)
    return f"{stage}: {count}, {rows:,} rows: {shown}{more}"


def begin(root: Path, stage: str, given_up: Sequence[Quarantined]) -> None:
    """Call it before a version without these is committed: a kill must not make it look whole."""
    if given_up:
        _write(_pending(root, stage), given_up)


def settle(root: Path, stage: str, content: str, given_up: Sequence[Quarantined]) -> None:
    """Call it after the commit, also of a whole version."""
    if given_up:
        _write(_note(root, stage, content), given_up)
    else:
        _note(root, stage, content).unlink(missing_ok=True)
    _pending(root, stage).unlink(missing_ok=True)


def lacking(root: Path, stage: str, content: str) -> tuple[Quarantined, ...]:
    """The shards that a version was committed without."""
    for path in (_pending(root, stage), _note(root, stage, content)):
        if path.exists():
            values = read_sealed(path) or {"shards": [_UNREADABLE]}
            return tuple(Quarantined(**each) for each in values["shards"])
    return ()


_UNREADABLE = asdict(Quarantined("?", 0, 0, "the note of the quarantine is damaged"))


def _write(path: Path, given_up: Sequence[Quarantined]) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(path, {"shards": [asdict(each) for each in given_up]})


def _note(root: Path, stage: str, content: str) -> Path:
    return root / "quarantined" / f"{stage}-{content[:16]}.json"


def _pending(root: Path, stage: str) -> Path:
    return root / "quarantined" / f"{stage}-pending.json"
