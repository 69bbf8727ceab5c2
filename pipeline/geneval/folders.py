"""GenEval's folder of pictures, read and written: anyone's pictures can be scored, ours by anyone.

    FOLDER/00000/metadata.jsonl     one row of evaluation_metadata.jsonl
    FOLDER/00000/samples/0000.png   a name of digits a picture
    FOLDER/00000/grid.png           optional, not read

In:    such a folder; or requests with their pictures.
Out:   a `Sample` a picture, in order; or the folder.
Rerun: a prompt's folder appears by rename once it is whole, and is then kept.

The published reader takes what it finds. Here a prompt that is missing, has more or fewer pictures
than the others, or files that are none is a ValueError that names all such places: a score over
other pictures than was thought is worse than none.
"""

import io
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from pipeline.decoding import DAMAGE
from pipeline.geneval.prompts import Request, request_of

SHOWN_FAULTS = 12  # in one error
GRID_GAP = 2  # pixels between the pictures of grid.png
EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}


class Sample(NamedTuple):
    """One picture of a folder."""

    prompt_index: int
    image_index: int
    request: Request
    path: Path


def read_folder(
    folder: Path,
    *,
    requests: Sequence[Request] | None = None,
    images_per_prompt: int | None = None,
) -> list[Sample]:
    """Every picture; `requests` are the prompts that must be there, and no others.

    Without `images_per_prompt` every prompt must have as many pictures as most have.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    faults: list[str] = []
    places: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and _is_number(path.name):  # others are passed over, as published
            if int(path.name) in places:
                faults.append(f"{path} and {places[int(path.name)].name} are of the same prompt")
            places[int(path.name)] = path
    if not places:
        raise ValueError(f"{folder}: no prompts in it; expected {folder}/00000/metadata.jsonl")
    samples: list[Sample] = []
    for index, place in places.items():
        try:
            samples += _prompt_folder(index, place, requests, faults)
        except ValueError as error:
            faults.append(str(error))
    faults += _missing_prompts(folder, places, requests)
    faults += _wrong_counts(places, samples, images_per_prompt) if not faults else []
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults[:SHOWN_FAULTS])
        more = f"\n  and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        raise ValueError(f"{folder}: cannot be scored as it is:{shown}{more}")
    return samples


def _prompt_folder(
    index: int, place: Path, requests: Sequence[Request] | None, faults: list[str]
) -> list[Sample]:
    metadata, pictures = place / "metadata.jsonl", place / "samples"
    if not metadata.is_file():
        raise ValueError(f"{metadata} is missing")
    request = request_of(metadata.read_text("utf-8"), str(metadata))
    if requests is not None and index < len(requests) and request != requests[index]:
        asked = requests[index].prompt
        raise ValueError(f"{metadata} is of {request.prompt!r}, prompt {index} is {asked!r}")
    if not pictures.is_dir():
        raise ValueError(f"{pictures} is missing")
    found: dict[int, Path] = {}
    for path in sorted(pictures.iterdir()):
        if path.name.startswith(".") or path.name == "Thumbs.db":  # of file managers
            continue
        if not (path.is_file() and path.suffix == ".png" and _is_number(path.stem)):
            faults.append(f"{path} is no picture's place: expected names like 0000.png")
        elif int(path.stem) in found:
            faults.append(f"{path} and {found[int(path.stem)].name} have the same number")
        else:
            found[int(path.stem)] = path
    if not found:
        raise ValueError(f"{pictures} has no pictures")
    return [Sample(index, number, request, found[number]) for number in sorted(found)]


def _missing_prompts(
    folder: Path, places: "dict[int, Path]", requests: Sequence[Request] | None
) -> list[str]:
    if requests is None:
        return []
    lost = sorted(set(range(len(requests))) - set(places))
    extra = sorted(set(places) - set(range(len(requests))))
    faults = []
    if lost:
        faults.append(
            f"{len(lost)} of {len(requests)} prompts are missing, the first "
            f"{folder / _name(lost[0])}"
        )
    if extra:
        faults.append(f"{len(extra)} folders are of no prompt, the first {places[extra[0]]}")
    return faults


def _wrong_counts(
    places: "dict[int, Path]", samples: Sequence[Sample], images_per_prompt: int | None
) -> list[str]:
    counts = Counter(sample.prompt_index for sample in samples)
    most = Counter(counts.values()).most_common(1)[0][0]
    expected = images_per_prompt or most
    return [
        f"{places[index] / 'samples'} has {counts[index]} pictures, expected {expected}"
        for index in places
        if counts[index] != expected
    ]


def open_picture(path: Path) -> Image.Image:
    """An RGB picture turned as its EXIF says; transparency is dropped, as published."""
    try:
        with Image.open(path) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except (Image.DecompressionBombError, *DAMAGE) as error:
        raise ValueError(f"{path} is no readable picture: {error}") from error
    if image.mode not in EIGHT_BITS:
        raise ValueError(f"{path} has pixels of mode {image.mode}, expected 8 bits a channel")
    return image.convert("RGB")


def check_pictures(samples: Sequence[Sample]) -> None:
    """Every picture that is not readable, in one ValueError, before a model is loaded."""
    faults = []
    for sample in samples:
        try:
            open_picture(sample.path)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults[:SHOWN_FAULTS])
        raise ValueError(f"{len(faults)} of {len(samples)} pictures cannot be read:{shown}")


# --- writing ------------------------------------------------------------------------------------


def write_folder(folder: Path, prompts: Iterable[tuple[int, Request, Sequence[bytes]]]) -> int:
    """Prompts with the PNG files of their pictures, each a folder; how many were written anew."""
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for index, request, pictures in prompts:
        place, partial = folder / _name(index), folder / f".{_name(index)}.partial"
        if place.exists():
            _check_same(place, request, len(pictures))
            continue
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "samples").mkdir(parents=True)
        (partial / "metadata.jsonl").write_text(json.dumps(dict(request.row)), "utf-8")
        for number, picture in enumerate(pictures):
            (partial / "samples" / f"{number:04d}.png").write_bytes(picture)
        _grid(pictures).save(partial / "grid.png")
        partial.rename(place)
        written += 1
    return written


def _check_same(place: Path, request: Request, number: int) -> None:
    there = request_of((place / "metadata.jsonl").read_text("utf-8"), str(place))
    pictures = len(list((place / "samples").glob("*.png")))
    if there != request or pictures != number:
        raise ValueError(f"{place} is of another prompt or number of pictures; write elsewhere")


def _grid(pictures: Sequence[bytes]) -> Image.Image:
    """All pictures of a prompt in a row."""
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    width = sum(image.width for image in images) + GRID_GAP * (len(images) + 1)
    height = max(image.height for image in images) + 2 * GRID_GAP
    grid, left = Image.new("RGB", (width, height)), GRID_GAP
    for image in images:
        grid.paste(image, (left, GRID_GAP))
        left += image.width + GRID_GAP
    return grid


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _name(index: int) -> str:
    return f"{index:05d}"
