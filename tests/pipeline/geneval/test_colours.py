"""Crops and colours: the crop by arithmetic, the colours through the real open_clip."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.clip_models import Clip
from pipeline.geneval.colours import SCALE, TEMPLATES, ColourReader, Object, crop
from pipeline.geneval.prompts import COLOURS
from tests.pipeline.geneval.conftest import noise


def test_an_object_stands_on_grey_and_is_cut_to_its_box() -> None:
    mask = np.zeros((40, 48), bool)
    mask[10:20, 5:30] = True
    mask[12, 7] = False
    image = noise()
    cut = crop(Object(image, "dog", np.array([4, 9, 30, 20, 0.9]), mask))
    assert cut.size == (26, 11)
    assert cut.getpixel((0, 0)) == cut.getpixel((3, 3)) == (0x99, 0x99, 0x99)
    assert cut.getpixel((1, 1)) == image.getpixel((5, 10))


@pytest.fixture
def clip(clip_folder: Path) -> Clip:
    return Clip(str(clip_folder), batch_size=3)


def test_logits_are_those_of_the_published_templates(clip: Clip) -> None:
    image = noise()
    whole = np.ones((40, 48), bool)
    (colour,) = ColourReader(clip).read([Object(image, "cat", np.array([0, 0, 48, 40, 1]), whole)])
    seen = clip.model.encode_image(clip.transform(image)[None])[0]
    for name, logit in zip(COLOURS, colour.logits, strict=True):
        texts = [form.format(colour=name, name="cat") for form in TEMPLATES]
        vectors = clip.model.encode_text(clip.tokenizer(texts))
        mean = (vectors / vectors.norm(dim=-1, keepdim=True)).mean(0)
        cosine = torch.dot(seen, mean) / seen.norm() / mean.norm()
        assert logit == pytest.approx(SCALE * cosine.item(), abs=1e-3)
    assert colour.logits[COLOURS.index(colour.name)] == max(colour.logits)


def test_objects_of_many_classes_keep_their_order(clip: Clip) -> None:
    whole, box = np.ones((40, 48), bool), np.array([0, 0, 48, 40, 1.0])
    objects = [Object(noise(seed=n), name, box, whole) for n, name in enumerate("abcab")]
    together = ColourReader(clip).read(objects)
    for one, colour in zip(objects, together, strict=True):
        (alone,) = ColourReader(clip).read([one])
        assert colour.logits == pytest.approx(alone.logits, abs=1e-3)
    assert ColourReader(clip).read([]) == []


def test_a_lead_is_told_for_every_colour(clip: Clip) -> None:
    whole, box = np.ones((40, 48), bool), np.array([0, 0, 48, 40, 1.0])
    (colour,) = ColourReader(clip).read([Object(noise(), "dog", box, whole)])
    first, second = sorted(colour.logits)[:-3:-1]
    assert colour.leads[colour.name] == pytest.approx(first - second)
    assert sum(lead > 0 for lead in colour.leads.values()) == 1


def test_a_folder_of_another_layout_is_named(clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"--clip: .* holds no open_clip_config\.json"):
        Clip(str(tmp_path), place="--clip")


def test_its_name_is_that_of_its_weights(clip: Clip) -> None:
    assert clip.name.startswith("clip-tiny@")


def test_a_picture_of_another_shape_is_still_a_crop() -> None:
    tall = Image.new("RGB", (8, 90), (1, 2, 3))
    cut = crop(Object(tall, "tie", np.array([0, 0, 8, 90, 1.0]), np.ones((90, 8), bool)))
    assert cut.tobytes() == tall.tobytes()
