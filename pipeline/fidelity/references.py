"""Sets of pictures, and their features kept under a fingerprint.

In:    a folder of pictures at any depth (PNG, JPEG, WebP), or GenEval's folder; an extractor.
Out:   features (N, D) in the order of the files' names, in a cache folder as .npy.
Rerun: a set whose files, extractor, size and resize are those of a fingerprint is read, not seen
       again. A file appears by rename.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.decoding import square
from pipeline.fidelity.distances import Features
from pipeline.fidelity.extractors import Extractor
from pipeline.fidelity.measuring import Pictures
from pipeline.geneval.folders import open_picture
from pipeline.seals import sha256_of
from pipeline.tables import digest

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
AT_ONCE = 256  # pictures decoded at once


@dataclass(frozen=True)
class PictureSet:
    """The pictures of a folder; `size`: cut to the middle square and brought to so many pixels."""

    folder: Path
    files: tuple[Path, ...]
    size: int | None = None

    @staticmethod
    def of(folder: Path, size: int | None = None, most: int | None = None) -> "PictureSet":
        """The first `most` by name; fewer than that are a ValueError."""
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder")
        files = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in ENDINGS
            and path.name != "grid.png"  # GenEval's: all pictures of a prompt once more
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
        if len(files) < max(2, most or 0):
            raise ValueError(
                f"{folder}: {len(files)} pictures, {max(2, most or 0)} are needed "
                f"({', '.join(ENDINGS)})"
            )
        return PictureSet(folder, tuple(files[:most]), size)

    def fingerprint(self) -> str:
        """Of the files' names and bytes, and of the size."""
        facts = [[path.relative_to(self.folder).as_posix(), sha256_of(path)] for path in self.files]
        return digest([facts, self.size])

    def images(self) -> Iterator[list[Image.Image]]:
        for first in range(0, len(self.files), AT_ONCE):
            yield [self._open(path) for path in self.files[first : first + AT_ONCE]]

    def _open(self, path: Path) -> Image.Image:
        image = open_picture(path)
        return square(image, self.size) if self.size else image

    @property
    def preparation(self) -> str:
        return f"middle square at {self.size} px" if self.size else "as it is"

    def captions(self) -> list[str]:
        return [self.caption(path) for path in self.files]

    def caption(self, path: Path) -> str:
        """From GenEval's metadata of the picture's prompt, or a .txt file of the same name."""
        metadata, text = path.parent.parent / "metadata.jsonl", path.with_suffix(".txt")
        if text.is_file():
            return text.read_text("utf-8").strip()
        if path.parent.name == "samples" and metadata.is_file():
            return str(json.loads(metadata.read_text("utf-8"))["prompt"])
        raise ValueError(
            f"{path} has no caption: expected {text.name} beside it, or GenEval's folder"
        )


def features_of(pictures: Pictures, extractor: Extractor, cache: Path) -> tuple[Features, str]:
    """Features and the fingerprint under which they are kept."""
    fingerprint = digest([pictures.fingerprint(), extractor.name, extractor.resize])[:16]
    path = cache / f"{fingerprint}.npy"
    if path.is_file():
        kept: Features = np.load(path, allow_pickle=False)
        return kept, fingerprint
    rows = np.concatenate([extractor.features(images) for images in pictures.images()])
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{fingerprint}.{os.getpid()}.npy")
    np.save(partial, rows, allow_pickle=False)
    partial.replace(path)
    return rows, fingerprint
