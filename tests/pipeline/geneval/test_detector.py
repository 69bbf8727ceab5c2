"""The detector's steps against plain arithmetic, through a real Mask2Former of random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.geneval import detector as steps
from pipeline.geneval.detector import Detector, detections, prepare, tight_box
from pipeline.geneval.prompts import CLASSES
from pipeline.geneval.rules import LEAST_SCORE
from tests.pipeline.geneval.conftest import mask2former, noise


def logits(queries: int = 3, height: int = 8, width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    classes = torch.randn(queries, len(CLASSES) + 1, generator=generator) * 3
    return classes, torch.randn(queries, height, width, generator=generator) * 4


def enlarged(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, corners not aligned, written out."""
    out = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            v = max((y + 0.5) * mask.shape[0] / height - 0.5, 0)
            u = max((x + 0.5) * mask.shape[1] / width - 0.5, 0)
            top, left = int(v), int(u)
            below, right = min(top + 1, mask.shape[0] - 1), min(left + 1, mask.shape[1] - 1)
            upper = mask[top, left] * (1 - u + left) + mask[top, right] * (u - left)
            lower = mask[below, left] * (1 - u + left) + mask[below, right] * (u - left)
            out[y, x] = upper * (1 - v + top) + lower * (v - top)
    return out


def test_a_picture_is_scaled_into_1333_by_800_and_padded_to_32() -> None:
    sizes = [(512, 512), (64, 64), (2000, 500), (500, 2000)]
    made = [prepare([Image.new("RGB", size)], "cpu") for size in sizes]
    assert [scaled for _, scaled in made] == [(800, 800), (800, 800), (333, 1333), (1333, 333)]
    shapes = [tuple(pixels.shape[2:]) for pixels, _ in made]
    assert shapes == [(800, 800), (800, 800), (352, 1344), (1344, 352)]


def test_pixels_are_normalised_and_the_padding_is_nought() -> None:
    pixels, scaled = prepare([Image.new("RGB", (100, 40), (255, 0, 128))], "cpu")
    channels = zip((255, 0, 128), steps.MEAN, steps.STD, strict=True)
    expected = [(value - mean) / std for value, mean, std in channels]
    assert pixels[0, :, 5, 5].tolist() == pytest.approx(expected, abs=1e-5)
    assert pixels[0, :, scaled[0] :].abs().max() == 0


def test_scores_and_boxes_are_those_of_the_published_steps() -> None:
    classes, masks = logits()
    size, padded, scaled = (20, 31), (32, 64), (30, 46)
    seen = detections(classes, masks, padded=padded, scaled=scaled, size=size)
    probabilities = torch.softmax(classes, -1)[:, :-1].numpy()
    for query, probability in enumerate(probabilities):
        big = enlarged(masks[query].numpy(), *padded)[: scaled[0], : scaled[1]]
        own = enlarged(big, *size)
        sure = (1 / (1 + np.exp(-own)))[own > 0].sum() / ((own > 0).sum() + 1e-6)
        label = int(probability.argmax())
        expected = probability[label] * sure
        rows = seen.boxes[CLASSES[label]]
        row = rows[np.abs(rows[:, 4] - expected).argmin()]
        assert row[4] == pytest.approx(expected, abs=1e-4)
        assert row[:4].tolist() == list(tight_box(own > 0))


def test_a_class_has_boxes_and_masks_of_the_picture_in_the_same_order() -> None:
    seen = detections(*logits(40), padded=(32, 64), scaled=(30, 46), size=(20, 31))
    assert sum(map(len, seen.boxes.values())) > 20
    for name, boxes in seen.boxes.items():
        assert boxes.dtype == np.float32
        assert seen.masks[name].shape == (len(boxes), 20, 31)
        tight = [tight_box(mask) for mask in seen.masks[name]]
        assert boxes[:, :4].tolist() == [list(map(float, box)) for box in tight]
        assert (boxes[:, 4] >= LEAST_SCORE).all()


def test_a_box_is_tight_and_that_of_an_empty_mask_is_nought() -> None:
    mask = np.zeros((9, 12), bool)
    assert tight_box(mask) == (0, 0, 0, 0)
    mask[2:5, 7] = mask[6, 3] = True
    assert tight_box(mask) == (3, 2, 8, 7)


@pytest.fixture(scope="session")
def detector(detector_folder: Path) -> Detector:
    return Detector(str(detector_folder), batch_size=2)


def test_pictures_of_many_sizes_keep_their_order_and_need_no_neighbours(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "SHORT_SIDE", 64)  # of the same steps, in a second
    images = [noise(48, 40), noise(30, 60, 1), noise(48, 40, 2), noise(48, 40, 3)]
    together = detector.detect(images)
    apart = [detector.detect([image])[0] for image in images]
    assert sum(len(seen.boxes) for seen in together) > 4
    for one, other in zip(together, apart, strict=True):
        assert one.boxes.keys() == other.boxes.keys()
        for name, boxes in one.boxes.items():
            np.testing.assert_allclose(boxes, other.boxes[name], atol=1e-4)


def test_its_name_is_that_of_its_weights(detector: Detector, tmp_path: Path) -> None:
    name, digest = detector.name.split("@")
    assert name == "mask2former-tiny"
    assert len(digest) == 12
    mask2former(num_queries=5).save_pretrained(tmp_path / "mask2former-tiny")
    assert Detector(str(tmp_path / "mask2former-tiny")).name != detector.name


WRONG = {
    "81 classes": ({"id2label": {n: f"LABEL_{n}" for n in range(81)}}, "has 81 classes"),
    "other classes": (
        {"id2label": dict(enumerate([*CLASSES[:7], "cathedral", *CLASSES[8:]]))},
        "class 7 'cathedral', expected 'truck'",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_detector_without_the_80_classes_is_named(case: str, tmp_path: Path) -> None:
    values, sentence = WRONG[case]
    mask2former(**values).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        Detector(str(tmp_path), place="evaluation.evaluators.detector")


def test_cocos_own_names_and_older_ones_are_the_same_classes(tmp_path: Path) -> None:
    names = {"computer mouse": "mouse", "airplane": "aeroplane", "potted plant": "pottedplant"}
    labels = dict(enumerate(names.get(name, name) for name in CLASSES))
    mask2former(id2label=labels).config.save_pretrained(tmp_path)
    steps.check_classes("detector", tmp_path)


def test_weights_that_are_not_there_are_named_with_their_place() -> None:
    with pytest.raises(ValueError, match="--detector: nobody/nothing is no folder here"):
        Detector("nobody/nothing", place="--detector")
