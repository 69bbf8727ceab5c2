"""Captions streamed by the library `datasets`: a repository on the hub, pinned, or a folder here.

In:    a data set, its subset, split, revision and the column of the captions.
Out:   a part a shard of the data set, a row for every row; what the filters do not want has that
       as its reason. Pictures are not decoded, other columns not read where the format allows.
Rerun: a shard that was read whole is not fetched again. A revision names the content of a hub's
       data set; of a folder it is the names, sizes and times of its files.
"""

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pipeline.caption_sources import Part, SourceRow
from pipeline.caption_sources.files import row_of
from pipeline.config import HuggingFaceCaptions, RowFilter


class HuggingFaceSource:
    def __init__(self, config: HuggingFaceCaptions) -> None:
        self.config = config
        self.name = config.name
        self.licence = config.licence

    def fingerprint(self) -> str:
        return self._fingerprint(_state(Path(self.config.dataset)))

    def parts(self) -> list[Part]:
        if lacking := missing_dataset(self.config):
            raise ValueError("; ".join(lacking))
        config, state = self.config, _state(Path(self.config.dataset))
        number = _stream(config, state).num_shards
        whole = self._fingerprint(state)
        return [
            Part(
                f"{config.name}-{shard:05d}-of-{number:05d}",
                f"{whole}:{shard}:{number}",
                partial(self._rows, state, shard, number),
            )
            for shard in range(number)
        ]

    def _fingerprint(self, state: str) -> str:
        """A folder is known by its files, wherever it stands."""
        names = {"name", "licence", "caution"} | ({"dataset"} if state else set())
        values = self.config.model_dump_json(exclude=names)
        return hashlib.sha256(f"{values}:{state}".encode()).hexdigest()

    def _rows(self, state: str, shard: int, number: int) -> Iterator[SourceRow]:
        stream = _stream(self.config, state).shard(num_shards=number, index=shard)
        for row, values in enumerate(stream, 1):
            place = f"{self.config.name}:{shard}:{row}"
            unwanted = next((f for f in self.config.filters if not _wanted(f, values)), None)
            found = row_of(_value(values, self.config.column), place)
            if unwanted and not found.reason:
                found = SourceRow(found.text, place, f"not wanted: {unwanted.column}")
            yield found


def missing_dataset(config: HuggingFaceCaptions) -> list[str]:
    if importlib.util.find_spec("datasets") is None:
        return [
            f"captions source {config.name!r}: the package datasets is not installed: "
            "pip install -e '.[hub]'"
        ]
    if config.revision is None and not Path(config.dataset).is_dir():
        return [
            f"captions source {config.name!r}: {config.dataset} is not a folder here, and a data "
            "set of the hub needs a revision, the commit to read (its page lists them)"
        ]
    return []


@lru_cache(maxsize=8)
def _stream(config: HuggingFaceCaptions, state: str) -> Any:
    """The stream of the columns needed; `state` only tells changed folders apart."""
    import datasets

    stream = datasets.load_dataset(
        config.dataset,
        config.subset,
        split=config.split,
        revision=config.revision,
        streaming=True,
    )
    wanted = [config.column, *(each.column for each in config.filters)]
    if stream.column_names is None:  # found out only by reading
        return stream
    columns = list(dict.fromkeys(name.partition(".")[0] for name in wanted))
    if lacking := [name for name in columns if name not in stream.column_names]:
        raise ValueError(
            f"captions source {config.name!r}: no column {lacking[0]!r} in {config.dataset}; "
            f"it has {sorted(stream.column_names)}"
        )
    return stream.select_columns(columns)


def _value(values: Mapping[str, Any], column: str) -> object:
    """A column, or by dotted path a field of a struct or, by number, an entry of a list."""
    found: Any = values
    for name in column.split("."):
        if isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _wanted(wanted: RowFilter, values: Mapping[str, Any]) -> bool:
    value = _value(values, wanted.column)
    if wanted.equals is not None and value != wanted.equals:
        return False
    number = float(value) if isinstance(value, int | float) else None
    if wanted.at_least is not None and (number is None or number < wanted.at_least):
        return False
    return wanted.at_most is None or (number is not None and number <= wanted.at_most)


def _state(folder: Path) -> str:
    """Empty for a repository of the hub, whose revision says what it holds."""
    if not folder.is_dir():
        return ""
    states = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    facts = [
        [str(path.relative_to(folder)), state.st_size, state.st_mtime_ns]
        for path, state in states.items()
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
