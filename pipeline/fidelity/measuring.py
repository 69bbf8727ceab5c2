"""Measures of a set of pictures, each with what it was measured with.

In:    pictures (a folder's or a table's), a reference folder, the weights of what is asked for.
Out:   a `Measure` a number: FID, CMMD, CLIP score. Numbers of other counts, resizes or extractors
       do not compare, so each says its own.
Rerun: features of both sets are read from the cache.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.config import FidelityConfig

if TYPE_CHECKING:  # torch is loaded by the work
    from PIL import Image

    from pipeline.clip_models import Clip
    from pipeline.fidelity.distances import Features
    from pipeline.fidelity.extractors import Extractor

FID, CMMD, CLIP_SCORE = "FID", "CMMD", "CLIP score"
FEW = 10_000  # below that FID's bias is larger than what models differ by
INCEPTION_WIDTH = 2048


class Pictures(Protocol):
    def fingerprint(self) -> str: ...

    @property
    def preparation(self) -> str: ...

    def images(self) -> "Iterator[list[Image.Image]]": ...

    def captions(self) -> list[str]:
        """In the order of the images."""
        ...


@dataclass(frozen=True)
class Measure:
    measure: str
    value: float
    pictures: int
    reference_pictures: int  # 0: without a reference
    preparation: str  # what was done to the pictures before
    resize: str  # how they come to the size that the network sees
    extractor: str
    fingerprint: str  # of pictures and extractor
    reference_fingerprint: str
    cautions: str  # what speaks against the number; "" for nothing


def measured(
    pictures: Pictures, values: FidelityConfig, cache: Path, device: str = "cpu"
) -> Iterator[Measure]:
    from pipeline.clip_models import Clip
    from pipeline.fidelity.distances import cmmd, frechet, statistics
    from pipeline.fidelity.extractors import ClipVectors, Inception

    if values.inception:
        inception = Inception(Path(values.inception), resize=values.resize, device=device)
        one, other, told = _both(FID, pictures, values, inception, cache)
        yield Measure(FID, frechet(statistics(one), statistics(other)), *told)
    if values.cmmd:
        vectors = ClipVectors(Clip(values.cmmd, device=device, place="fidelity.cmmd"))
        one, other, told = _both(CMMD, pictures, values, vectors, cache)
        yield Measure(CMMD, cmmd(one, other), *told)
    if values.clip_score:
        clip = Clip(values.clip_score, device=device, place="fidelity.clip_score")
        yield clip_score(pictures, clip)


def _both(
    measure: str, pictures: Pictures, values: FidelityConfig, extractor: "Extractor", cache: Path
) -> "tuple[Features, Features, tuple[int, int, str, str, str, str, str, str]]":
    """Features of both sets, and all of a measure after its value."""
    from pipeline.fidelity.references import PictureSet, features_of

    assert values.reference is not None
    reference = PictureSet.of(Path(values.reference), values.size)
    one, fingerprint = features_of(pictures, extractor, cache)
    other, reference_fingerprint = features_of(reference, extractor, cache)
    return (
        one,
        other,
        (
            len(one),
            len(other),
            pictures.preparation,
            extractor.resize,
            extractor.name,
            fingerprint,
            reference_fingerprint,
            "; ".join(cautions(measure, min(len(one), len(other)))),
        ),
    )


def cautions(measure: str, number: int) -> list[str]:
    if measure != FID:
        return []
    told = [f"{number:,} pictures: biased upwards below {FEW:,}"] if number < FEW else []
    if number <= INCEPTION_WIDTH:
        told.append(f"no more pictures than features ({INCEPTION_WIDTH:,}): singular covariance")
    return told


def clip_score(pictures: Pictures, clip: "Clip") -> Measure:
    """100 times the mean cosine of picture and caption, at least 0 each (arXiv 2104.08718)."""
    from pipeline.fidelity.extractors import ClipVectors

    total, number, captions = 0.0, 0, pictures.captions()
    for images in pictures.images():
        texts = clip.texts(captions[number : number + len(images)])
        cosines = (clip.pictures(images) * texts).sum(-1)
        total += float(cosines.clamp(min=0).sum())
        number += len(images)
    way = (pictures.preparation, ClipVectors(clip).resize, clip.name, pictures.fingerprint()[:16])
    return Measure(CLIP_SCORE, 100 * total / number, number, 0, *way, "", "")


def weights_of(values: FidelityConfig) -> Sequence[tuple[str, str]]:
    """Place and folder of each CLIP that is asked for."""
    asked = (("cmmd", values.cmmd), ("clip_score", values.clip_score))
    return [(place, folder) for place, folder in asked if folder]
