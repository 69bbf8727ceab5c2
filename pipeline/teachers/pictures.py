"""An existing set of pictures as a teacher: each caption's own picture, nothing is drawn.

In:    captions, and the set's files (WebDataset tars, Parquet) that hold pictures with captions.
Out:   the picture whose caption reads the same once normalised, its middle square at the size
       asked for; a caption without one, and a picture that is broken, too small or too large, is
       a row with the reason. Of two pictures of one caption the first is taken.
Rerun: the same files give the same pictures. Tars are read in place: nothing is unpacked, so a
       member's name, a link or a folder inside them leads nowhere.
"""

import glob
import json
import logging
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import PicturesTeacher
from pipeline.decoding import decode, square
from pipeline.teachers import Drawing, TeacherFacts
from pipeline.teachers.flaws import flaw
from pipeline.wording import caption_id_of, normalise

NO_PICTURE, TOO_SMALL = "no picture in the set", "smaller than asked for"
MAX_CAPTION_BYTES, MAX_PICTURE_BYTES = 1_000_000, 256_000_000  # a member says any size
THREADS = 4  # decode beside each other: PIL lets go of the interpreter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where a picture's bytes are: in a tar from `first` on, in Parquet a row of a row group."""

    file: int
    first: int
    length: int  # tar: bytes; Parquet: the row within the row group `first`


@dataclass
class Index:
    """Captions' ids in order, and their places; 28 bytes a picture."""

    ids: list[int] = field(default_factory=list)
    places: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, text: object, place: Place) -> None:
        if isinstance(text, str) and (caption := normalise(text)):
            self.ids.append(int(caption_id_of(caption), 16))
            self.places.append((place.file, place.first, place.length))

    def finish(self) -> Callable[[str], Place | None]:
        ids = np.array(self.ids, np.uint64)
        places = np.array(self.places, np.int64).reshape(-1, 3)
        unique, first = np.unique(ids, return_index=True)
        places = places[first]
        self.ids, self.places = [], []

        def find(caption: str) -> Place | None:
            wanted = np.uint64(int(caption_id_of(normalise(caption)), 16))
            row = int(np.searchsorted(unique, wanted))
            if row == len(unique) or unique[row] != wanted:
                return None
            return Place(*map(int, places[row]))

        return find


class PictureFinder:
    def __init__(self, config: PicturesTeacher) -> None:
        self.config, self.files = config, files_of(config)
        if not self.files:
            raise ValueError(f"images.teacher.paths: no file matches {list(config.paths)}")
        self.facts = TeacherFacts(config.name, config.revision, config.licence, 0, 0.0)
        self.read = self._bytes_of_row if config.format == "parquet" else self._bytes_of_member
        index = Index()
        for number, path in enumerate(self.files):
            scan = scan_parquet if config.format == "parquet" else scan_tar
            for text, first, length in scan(path, config):
                index.add(text, Place(number, first, length))
        self.find = index.finish()
        self.pictures = lru_cache(maxsize=2)(self._pictures)

    def draw(self, captions: Sequence[str], seeds: Sequence[int], image_size: int) -> list[Drawing]:
        with ThreadPoolExecutor(THREADS) as threads:
            found = [self._found(caption) for caption in captions]
            return list(threads.map(lambda data: self._drawing(data, image_size), found))

    def _found(self, caption: str) -> bytes | None:
        place = self.find(caption)
        return self.read(place) if place else None

    def _drawing(self, data: bytes | None, image_size: int) -> Drawing:
        if data is None:
            return Drawing(None, NO_PICTURE)
        image, reason = decode(data, self.config.max_pixels)
        if image is None:
            return Drawing(None, reason)
        if min(image.size) < image_size:
            return Drawing(None, TOO_SMALL)
        fitted = square(image, image_size)
        reason = flaw(fitted)
        return Drawing(None, reason) if reason else Drawing(fitted)

    def _bytes_of_member(self, place: Place) -> bytes:
        with self.files[place.file].open("rb") as file:
            return os.pread(file.fileno(), place.length, place.first)

    def _bytes_of_row(self, place: Place) -> bytes:
        value = self.pictures(place.file, place.first)[place.length].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        return data or b""

    def _pictures(self, file: int, group: int) -> pa.ChunkedArray:
        """The pictures of a row group; rows are asked for in order, so a few groups are enough."""
        parquet = pq.ParquetFile(self.files[file])
        return parquet.read_row_group(group, columns=[self.config.image])[self.config.image]


def files_of(config: PicturesTeacher) -> list[Path]:
    matches = [Path(match) for pattern in config.paths for match in sorted(glob.glob(pattern))]
    return list(dict.fromkeys(path for path in matches if path.is_file()))


# --- captions and places ------------------------------------------------------------------------


def scan_tar(path: Path, config: PicturesTeacher) -> Iterator[tuple[object, int, int]]:
    """Caption, offset and length of each sample whose members follow each other under one name."""
    endings = config.image.lower().split(";")
    sample, text, place = "", None, None
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name, _, ending = member.name.rpartition("/")[2].partition(".")
                name = f"{member.name.rpartition('/')[0]}/{name}"
                if name != sample:
                    sample, text, place = name, None, None
                if not member.isreg():  # links and devices are no pictures
                    continue
                if ending.lower() in endings and member.size <= MAX_PICTURE_BYTES:
                    place = (member.offset_data, member.size)
                elif ending.lower() == config.member and member.size <= MAX_CAPTION_BYTES:
                    extracted = tar.extractfile(member)
                    text = caption_in(extracted.read() if extracted else b"", config.column)
                if text is not None and place is not None:
                    yield text, *place
                    text = place = None
    except (tarfile.ReadError, EOFError) as error:
        if not sample:
            raise ValueError(
                f"images.teacher.paths: {path} is no plain tar ({error}); a compressed one must "
                "be unpacked first, so that pictures can be read in place"
            ) from error
        logger.warning("%s is cut off after %r: %s", path, sample, error)


def caption_in(data: bytes, column: str | None) -> str | None:
    try:
        text = data.decode("utf-8")
        value = json.loads(text) if column else text
    except (ValueError, RecursionError):
        return None
    if column:
        value = value.get(column) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def scan_parquet(path: Path, config: PicturesTeacher) -> Iterator[tuple[object, int, int]]:
    """Caption, row group and row of each row."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"images.teacher.paths: {path} is no Parquet file: {error}") from error
    known = file.schema_arrow.names
    for name in (config.column, config.image):
        if name not in known:
            raise ValueError(f"images.teacher: {path} has no column {name!r}, it has {known}")
    for group in range(file.num_row_groups):
        captions = file.read_row_group(group, columns=[config.column])[config.column]
        for row, raw in enumerate(captions.cast(pa.large_binary()).to_pylist()):
            yield _text(raw), group, row


def _text(raw: bytes | None) -> str | None:
    try:
        return raw.decode("utf-8") if raw else None
    except UnicodeDecodeError:
        return None


def missing_files(config: PicturesTeacher) -> list[str]:
    return [
        f"images.teacher.paths: no file matches {pattern!r} (from {Path.cwd()})"
        for pattern in config.paths
        if not any(Path(match).is_file() for match in glob.glob(pattern))
    ]
