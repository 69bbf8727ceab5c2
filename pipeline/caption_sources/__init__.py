"""Where captions come from: a source yields rows, broken ones with their reason.

To add a source: a config in `pipeline/config.py`, a file here, one case in `build`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, assert_never

from pipeline.config import CaptionSourceConfig, FileCaptions, ShapesCaptions


@dataclass(frozen=True)
class SourceRow:
    """One row as it stands in the source; `text` is None exactly when `reason` is given."""

    text: str | None
    place: str  # file:line
    reason: str = ""


class CaptionSource(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def licence(self) -> str: ...

    def rows(self) -> Iterator[SourceRow]: ...

    def fingerprint(self) -> str:
        """Changes when the rows do."""
        ...


def build(config: CaptionSourceConfig) -> CaptionSource:
    match config:
        case ShapesCaptions():
            from pipeline.caption_sources.shapes import ShapesSource

            return ShapesSource(config)
        case FileCaptions():
            from pipeline.caption_sources.files import FileSource

            return FileSource(config)
        case _:
            assert_never(config)


def missing(config: CaptionSourceConfig) -> list[str]:
    """What this machine lacks for the source, one sentence each."""
    if not isinstance(config, FileCaptions):
        return []
    from pipeline.caption_sources.files import missing_files

    return missing_files(config)
