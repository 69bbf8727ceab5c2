"""Captions in WebDataset tars: one member a caption, JSON with a key or plain text.

In:    paths or glob patterns of tars, plain or compressed.
Out:   a part a tar, a row for every caption member, in the order of the tar. Only these members'
       bytes are read, into memory; nothing is extracted. A link, a name that leaves the folder or
       a member of unlikely size is a rejected row; a tar that ends early is one at its end.
Rerun: a part's fingerprint is the tar's name, size and time of change: a set can have 400 GB of
       pictures, and a tar touched for nothing is only read again.
"""

import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

from pipeline.caption_sources import Part, SourceRow, fingerprint_of
from pipeline.caption_sources.files import (
    BROKEN_JSON,
    UNDECODABLE,
    found_files,
    json_object,
    row_of,
)
from pipeline.config import WebDatasetCaptions

UNSAFE_NAME = "unsafe name in the tar"
NOT_A_FILE = "a link or device in the tar"
TOO_LARGE = "member too large"
BROKEN_TAR = "the tar breaks off here"
MAX_MEMBER_BYTES = 4 * 2**20  # of one caption; a bomb ends here


class WebDatasetSource:
    def __init__(self, config: WebDatasetCaptions) -> None:
        self.config = config
        self.name = config.name
        self.licence = config.licence

    def fingerprint(self) -> str:
        return fingerprint_of(self.parts())

    def parts(self) -> list[Part]:
        what = f"{self.config.member}:{self.config.column}"
        return [
            Part(path.name, f"{what}:{path.name}:{size}:{modified}", partial(self._rows, path))
            for path in found_files(self.config)
            for size, modified in [(path.stat().st_size, path.stat().st_mtime_ns)]
        ]

    def _rows(self, path: Path) -> Iterator[SourceRow]:
        number, last = 0, "its start"
        try:
            with tarfile.open(path, "r:*") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # or a million stay
                    last = member.name
                    if _ending(member.name) == self.config.member:
                        number += 1
                        yield self._row(tar, member, f"{path.name}:{member.name}")
                if not _is_whole(tar):
                    raise tarfile.ReadError("it has no end mark")
        except (tarfile.TarError, EOFError, OSError) as error:
            if not path.exists():  # not the tar's fault: the reader says what happened
                raise
            if not number:
                raise ValueError(f"{path} is not a whole tar: {error}") from error
            yield SourceRow(None, f"{path.name} after {last}", BROKEN_TAR)
        if not number:
            raise ValueError(f"{path} has no member that ends with .{self.config.member}")

    def _row(self, tar: tarfile.TarFile, member: tarfile.TarInfo, place: str) -> SourceRow:
        parts = PurePosixPath(member.name)
        if parts.is_absolute() or ".." in parts.parts:
            return SourceRow(None, place, UNSAFE_NAME)
        if not member.isreg():
            return SourceRow(None, place, NOT_A_FILE)
        if member.size > MAX_MEMBER_BYTES:
            return SourceRow(None, place, TOO_LARGE)
        file = tar.extractfile(member)
        return self._caption(file.read() if file else b"", place)

    def _caption(self, data: bytes, place: str) -> SourceRow:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return SourceRow(None, place, UNDECODABLE)
        if self.config.column is None:
            return row_of(text, place)
        value = json_object(text)
        if value is None:
            return SourceRow(None, place, BROKEN_JSON)
        return row_of(value.get(self.config.column), place)


def _is_whole(tar: tarfile.TarFile) -> bool:
    """Is there an end mark where reading ended? Without, tarfile stops without a word."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    return len(block) == tarfile.BLOCKSIZE and not any(block)


def _ending(name: str) -> str:
    """WebDataset's rule: what follows the first dot of the last name."""
    return name.rpartition("/")[2].partition(".")[2].lower()
