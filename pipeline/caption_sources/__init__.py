"""Where captions come from: a source has parts, a part yields rows, broken ones with their reason.

To add a source: a config in `pipeline/config.py`, a file here, one case in `build`.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, assert_never

from pipeline import plugins
from pipeline.config import (
    CaptionSourceConfig,
    FileCaptions,
    HuggingFaceCaptions,
    PluginCaptions,
    ShapesCaptions,
    WebDatasetCaptions,
)


class SourceRow(NamedTuple):
    """One row as it stands in the source; without a reason it has a text."""

    text: str | None
    place: str  # file:line
    reason: str = ""


@dataclass(frozen=True)
class Part:
    """What is read in one piece: a file, a tar, a shard of a hub's data set."""

    name: str
    fingerprint: str  # changes when the rows do
    rows: Callable[[], Iterator[SourceRow]]


def fingerprint_of(parts: Sequence[Part]) -> str:
    """Of a source that is all its parts."""
    return hashlib.sha256("\n".join(part.fingerprint for part in parts).encode()).hexdigest()


class CaptionSource(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def licence(self) -> str: ...

    def fingerprint(self) -> str:
        """Changes when the rows do; asked often, so nothing is fetched for it."""
        ...

    def parts(self) -> Sequence[Part]:
        """In the order of their rows; a part that was read is not asked again."""
        ...


def build(config: CaptionSourceConfig) -> CaptionSource:
    match config:
        case ShapesCaptions():
            from pipeline.caption_sources.shapes import ShapesSource

            return ShapesSource(config)
        case FileCaptions():
            from pipeline.caption_sources.files import FileSource

            return FileSource(config)
        case WebDatasetCaptions():
            from pipeline.caption_sources.webdataset import WebDatasetSource

            return WebDatasetSource(config)
        case HuggingFaceCaptions():
            from pipeline.caption_sources.hugging_face import HuggingFaceSource

            return HuggingFaceSource(config)
        case PluginCaptions():
            values = {**config.values, "name": config.name, "licence": config.licence}
            source: CaptionSource = plugins.load(config.path, values)
            return source
        case _:
            assert_never(config)


def all_rows(source: CaptionSource) -> Iterator[SourceRow]:
    """Every row of a source, part by part."""
    for part in source.parts():
        yield from part.rows()


def missing(config: CaptionSourceConfig) -> list[str]:
    """What this machine lacks for the source, one sentence each."""
    match config:
        case ShapesCaptions():
            return []
        case FileCaptions() | WebDatasetCaptions():
            from pipeline.caption_sources.files import missing_files

            return missing_files(config)
        case HuggingFaceCaptions():
            from pipeline.caption_sources.hugging_face import missing_dataset

            return missing_dataset(config)
        case PluginCaptions():
            lacking = plugins.missing(config.path, f"captions source {config.name!r}")
            return [lacking] if lacking else []
        case _:
            assert_never(config)
