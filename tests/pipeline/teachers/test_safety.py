"""A small classifier of known weights: bright pictures are what it finds unsafe."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

from pipeline.config import SafetyConfig
from pipeline.teachers import build
from pipeline.teachers.safety import SafetyCheck


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("classifier")
    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic",
        id2label={0: "normal", 1: "nsfw"}, label2id={"normal": 0, "nsfw": 1},
    )  # fmt: skip
    model = ResNetForImageClassification(config).eval()
    with torch.no_grad():
        for weights in model.resnet.parameters():
            weights.fill_(0.05)  # the brighter the picture, the larger every feature
        model.classifier[1].weight.copy_(torch.tensor([[-50.0] * 4, [50.0] * 4]))
        grey = ViTImageProcessorPil()(Image.new("RGB", (64, 64), "grey"), return_tensors="pt")
        model.classifier[1].bias.copy_(-model(grey.pixel_values).logits[0])
    model.save_pretrained(folder)
    ViTImageProcessorPil().save_pretrained(folder)
    return str(folder)


def test_pictures_are_told_apart_by_the_labels_named(classifier: str) -> None:
    images = [Image.new("RGB", (64, 64), colour) for colour in ("black", "white", "black")]
    check = SafetyCheck(SafetyConfig(repository=classifier))
    assert check.unsafe_among(images) == [False, True, False]
    other = SafetyCheck(SafetyConfig(repository=classifier, labels=("Normal",)))
    assert other.unsafe_among(images) == [True, False, True]


def test_a_label_that_it_does_not_have_is_named(classifier: str) -> None:
    with pytest.raises(ValueError, match=r"has no \['gore'\], it has \['normal', 'nsfw'\]"):
        SafetyCheck(SafetyConfig(repository=classifier, labels=("gore",)))


def test_an_unsafe_picture_is_a_row_with_its_reason(tiny, classifier: str, monkeypatch) -> None:
    teacher = build(tiny(safety={"repository": classifier}, batch_size=4))
    noise = Image.effect_noise((64, 64), 20).convert("RGB")
    bright, dark = noise.point(lambda v: 205 + v // 6), noise.point(lambda v: v // 4)
    output = SimpleNamespace(images=[dark, bright])
    monkeypatch.setattr(teacher, "pipe", lambda **values: output)
    monkeypatch.setattr(teacher, "_encode", lambda captions: None)
    monkeypatch.setattr(teacher, "_arguments", dict)
    drawings = teacher.draw(["a cat"] * 2, range(2), 64)
    assert [drawing.reason for drawing in drawings] == ["", "unsafe picture"]
