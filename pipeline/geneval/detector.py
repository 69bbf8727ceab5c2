"""Mask2Former through transformers, read as GenEval's detector reads it: boxes, masks, scores.

In:    RGB pictures; a folder or hub repository of a Mask2Former for the 80 classes of COCO.
Out:   a `Detected` a picture: for each class the boxes (N, 5) and their masks, surest first by
       the class's score. The 100 best of all (query, class) pairs, as published; those of a
       final score below `LEAST_SCORE` are left out, since no threshold is near them.
Rerun: the same pictures give the same boxes, to the last bits of another batch.

Shapes: B pictures, Q queries, K classes, H W pixels of a picture, h w of the masks (H W / 4).

The steps are mmdet's (MaskFormer's fusion head, arXiv 2112.01527), not those of transformers'
`post_process_instance_segmentation`, which paints one map and lets no masks overlap:
- the picture is scaled into 1333 x 800 with its aspect kept, bilinear without antialiasing, and
  padded with zeros to a multiple of 32 after it was normalised;
- mask logits are enlarged to the padded size, cut to the picture's, enlarged to its own size;
- score = class probability x mean mask probability inside the mask; box = tight box of the mask.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.clip_models import declare_operators
from pipeline.geneval.prompts import CLASSES
from pipeline.geneval.rules import LEAST_SCORE, Boxes
from pipeline.geneval.weights import folder_of, identity

SHORT_SIDE, LONG_SIDE, DIVISOR = 800, 1333, 32  # pixels
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of RGB, 0 to 255
PAIRS = 100  # of (query, class) with the best class scores
# Other names of the same classes, as detectors carry them.
SAME = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
    "television": "tv",
    "mouse": "computer mouse",
    "remote": "tv remote",
    "keyboard": "computer keyboard",
    "hair dryer": "hair drier",
    "doughnut": "donut",
}


@dataclass(frozen=True)
class Detected:
    """What is seen in one picture; a class that is not seen is not there."""

    boxes: Mapping[str, Boxes]
    masks: Mapping[str, NDArray[np.bool_]]  # (N, H, W)


class Detector:
    def __init__(
        self,
        repository: str,
        revision: str | None = None,
        *,
        device: str = "cpu",
        batch_size: int = 8,
        place: str = "detector",
    ) -> None:
        declare_operators()  # transformers imports torchvision where it is installed
        import transformers

        folder = folder_of(place, repository, revision)
        check_classes(place, folder)
        self.name = identity(folder, repository)
        self.device, self.batch_size = device, batch_size
        model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        )
        self.model = model.to(device).eval()

    def detect(self, images: Sequence[Image.Image]) -> list[Detected]:
        """In the order of the pictures; those of one size share a batch."""
        found: dict[int, Detected] = {}
        sizes = dict.fromkeys(image.size for image in images)
        for size in sizes:
            numbers = [n for n, image in enumerate(images) if image.size == size]
            for first in range(0, len(numbers), self.batch_size):
                part = numbers[first : first + self.batch_size]
                seen = self._batch([images[number] for number in part])
                found |= dict(zip(part, seen, strict=True))
        return [found[number] for number in range(len(images))]

    @torch.inference_mode()
    def _batch(self, images: Sequence[Image.Image]) -> Iterator[Detected]:
        pixels, scaled = prepare(images, self.device)
        seen = self.model(pixel_values=pixels)
        size = (images[0].height, images[0].width)
        padded = (pixels.shape[2], pixels.shape[3])
        for classes, masks in zip(
            seen.class_queries_logits, seen.masks_queries_logits, strict=True
        ):
            yield detections(classes, masks, padded=padded, scaled=scaled, size=size)


def check_classes(place: str, folder: Path) -> None:
    """A detector that does not number COCO's 80 classes as COCO does is a ValueError."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    if config.model_type != "mask2former":
        raise ValueError(f"{place}: {folder} holds a {config.model_type}, expected a mask2former")
    names = config.id2label
    if len(names) != len(CLASSES):
        raise ValueError(
            f"{place}: {folder} has {len(names)} classes, expected the {len(CLASSES)} of COCO "
            "(instances, not panoptic or semantic segmentation)"
        )
    for number, expected in enumerate(CLASSES):
        name = str(names[number])
        if name != f"LABEL_{number}" and _plain(name) != _plain(expected):
            raise ValueError(
                f"{place}: {folder} calls class {number} {name!r}, expected {expected!r}"
            )


def _plain(name: str) -> str:
    lower = name.lower().replace("-", " ").replace("_", " ")
    return SAME.get(lower, lower).replace(" ", "")


def prepare(images: Sequence[Image.Image], device: str) -> tuple[Tensor, tuple[int, int]]:
    """Pictures of one size (B, 3, height, width), padded, and their height and width in it."""
    width, height = images[0].size
    scale = min(LONG_SIDE / max(width, height), SHORT_SIDE / min(width, height))
    scaled = (int(height * scale + 0.5), int(width * scale + 0.5))
    pixels = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images]))
    pixels = rearrange(pixels.to(device), "b h w c -> b c h w").float()
    pixels = F.interpolate(pixels, scaled, mode="bilinear", align_corners=False).round()
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    bottom, right = (-side % DIVISOR for side in scaled)
    return F.pad((pixels - mean) / std, (0, right, 0, bottom)), scaled


def detections(
    classes: Tensor,
    masks: Tensor,
    *,
    padded: tuple[int, int],
    scaled: tuple[int, int],
    size: tuple[int, int],
) -> Detected:
    """One picture's (Q, K + 1) class logits and (Q, h, w) mask logits as boxes and masks."""
    scores = classes.softmax(-1)[:, :-1]  # (Q, K)
    best, pairs = scores.flatten().topk(min(PAIRS, scores.numel()))
    queries, labels = pairs // scores.shape[1], pairs % scores.shape[1]
    # A mask's mean probability is at most 1: what is too low already needs no mask.
    likely = best >= LEAST_SCORE
    best, queries, labels = best[likely], queries[likely], labels[likely]
    used, place = torch.unique(queries, return_inverse=True)
    if not len(used):
        return Detected({}, {})
    logits = masks[used, None]  # (U, 1, h, w)
    logits = F.interpolate(logits, padded, mode="bilinear", align_corners=False)
    logits = logits[:, :, : scaled[0], : scaled[1]]
    logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)[:, 0]  # (U, H, W)
    inside = logits > 0
    sums = (logits.sigmoid() * inside).flatten(1).sum(1)
    sure = sums / (inside.flatten(1).sum(1) + 1e-6)  # (U,)
    return _by_class(
        (best * sure[place]).cpu().numpy(),
        labels.cpu().numpy(),
        place.cpu().numpy(),
        inside.cpu().numpy(),
    )


def _by_class(
    scores: NDArray[np.float32],
    labels: NDArray[np.intp],
    places: NDArray[np.intp],
    masks: NDArray[np.bool_],
) -> Detected:
    """`masks` (U, H, W) are shared: two classes of one query have one mask."""
    corners = [tight_box(mask) for mask in masks]
    boxes: dict[str, Boxes] = {}
    kept: dict[str, NDArray[np.bool_]] = {}
    for label in np.unique(labels):
        chosen = np.flatnonzero((labels == label) & (scores >= LEAST_SCORE))
        if len(chosen):
            rows = [[*corners[places[n]], scores[n]] for n in chosen]
            boxes[CLASSES[label]] = np.array(rows, np.float32)
            kept[CLASSES[label]] = masks[places[chosen]]
    return Detected(boxes, kept)


def tight_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, the last two exclusive; zeros for an empty mask (H, W)."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
