"""One teacher for all classes of diffusers: each drawn by the real class with random weights."""

import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.teachers import build, identity
from pipeline.teachers.diffusers import joined

CAPTIONS, SEEDS = ["a cat", "a dog on a mat", "a cat"], [1, 2, 3]
CLASSES = [
    ("FluxPipeline", 0.0),
    ("StableDiffusion3Pipeline", 0.0),
    ("StableDiffusion3Pipeline", 4.5),
    ("SanaPipeline", 4.5),
    ("ZImagePipeline", 0.0),
    ("ZImagePipeline", 3.0),
]


def levels(drawings) -> list[np.ndarray]:
    assert [drawing.reason for drawing in drawings] == [""] * len(drawings)
    return [np.asarray(drawing.image, int) for drawing in drawings]


@pytest.mark.parametrize(("name", "guidance"), CLASSES)
def test_a_picture_follows_its_own_caption_and_seed(tiny, name: str, guidance: float) -> None:
    teacher = build(tiny(name, guidance=guidance))
    pictures = levels(teacher.draw(CAPTIONS, SEEDS, 64))
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 3
    (alone,) = levels(teacher.draw(CAPTIONS[1:2], SEEDS[1:2], 64))
    # A batch changes the last bits of the arithmetic, a level of the picture at most.
    assert np.abs(alone - pictures[1]).max() <= 1
    assert np.abs(pictures[0] - pictures[2]).max() > 1


@pytest.mark.parametrize(("name", "guidance"), CLASSES)
def test_text_encoded_beforehand_draws_what_the_class_draws_itself(tiny, name, guidance) -> None:
    teacher = build(tiny(name, guidance=guidance))
    ours = levels(teacher.draw(CAPTIONS[:2], SEEDS[:2], 64))
    values = {"max_sequence_length": 32, **teacher.config.arguments}
    theirs = teacher.pipe(
        CAPTIONS[:2], height=64, width=64, num_inference_steps=2, guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS[:2]], **values,
    ).images  # fmt: skip
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one - np.asarray(other, int)).max() <= 1


def test_a_caption_is_encoded_once_whatever_its_seeds_and_calls(tiny, monkeypatch) -> None:
    teacher, encoded = build(tiny(text_batch_size=2)), []
    encode = teacher.pipe.encode_prompt

    def counted(prompt, **values):
        encoded.append(prompt)
        return encode(prompt=prompt, **values)

    monkeypatch.setattr(teacher.pipe, "encode_prompt", counted)
    monkeypatch.setattr(teacher, "_arguments", lambda: {"max_sequence_length": 32})
    teacher.draw(["a cat"] * 3 + ["a dog", "a pig"], range(5), 64)
    teacher.draw(["a pig", "a pig"], [6, 7], 64)
    assert [prompts for prompts in encoded if prompts] == [["a cat", "a dog"], ["a pig"]]


def test_a_negative_prompt_goes_with_the_text_itself(tiny) -> None:
    arguments = {"negative_prompt": "blur", "true_cfg_scale": 2.0}
    plain = levels(build(tiny()).draw(CAPTIONS, SEEDS, 64))
    steered = levels(build(tiny(arguments=arguments)).draw(CAPTIONS, SEEDS, 64))
    assert all((one != other).any() for one, other in zip(plain, steered, strict=True))


class Crowded:
    """A pipeline on a device that holds two pictures and no more."""

    def __init__(self, most: int) -> None:
        self.most, self.sizes = most, []

    def __call__(self, generator, **values):
        self.sizes.append(len(generator))
        if len(generator) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        noise = [g.initial_seed() * np.eye(8) for g in generator]
        return SimpleNamespace(images=[Image.fromarray(n.astype(np.uint8)) for n in noise])


def test_out_of_memory_halves_the_batch_and_goes_on(tiny, monkeypatch, caplog) -> None:
    teacher = build(tiny(batch_size=8))
    pipe = Crowded(2)
    monkeypatch.setattr(teacher, "pipe", pipe)
    monkeypatch.setattr(teacher, "_encode", lambda captions: None)
    monkeypatch.setattr(teacher, "_arguments", dict)
    with caplog.at_level(logging.WARNING):
        drawings = teacher.draw(["a cat"] * 9, range(20, 29), 16)
    assert [np.asarray(one.image).max() for one in drawings] == list(range(20, 29))
    assert pipe.sizes == [8, 4, 2, 2, 2, 2, 1]
    assert "batch_size is now 2" in caplog.text
    teacher.draw(["a cat"] * 2, [20, 21], 16)
    assert pipe.sizes[-1] == 2  # it stays small


def test_a_picture_that_fits_nowhere_is_a_sentence(tiny, monkeypatch) -> None:
    teacher = build(tiny())
    monkeypatch.setattr(teacher, "pipe", Crowded(0))
    monkeypatch.setattr(teacher, "_encode", lambda captions: None)
    monkeypatch.setattr(teacher, "_arguments", dict)
    with pytest.raises(ValueError, match="does not fit this machine's memory even at batch_size 1"):
        teacher.draw(["a cat"] * 2, [0, 1], 16)


def test_text_encoding_is_halved_too(tiny, monkeypatch) -> None:
    teacher, encoded = build(tiny(text_batch_size=4)), []
    encode = teacher._encode_batch

    def crowded(captions):
        encoded.append(len(captions))
        if len(captions) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(captions)

    monkeypatch.setattr(teacher, "_encode_batch", crowded)
    assert len(levels(teacher.draw(["a cat", "a dog", "a pig"], range(3), 64))) == 3
    assert encoded == [3, 1, 1, 1]


def test_black_flat_and_unsafe_pictures_are_rows_with_a_reason(tiny, monkeypatch) -> None:
    teacher = build(tiny(batch_size=4))
    noise = Image.effect_noise((64, 64), 50).convert("RGB")
    images = [Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), "blue"), noise, noise]
    output = SimpleNamespace(images=images, nsfw_content_detected=[False, False, True, False])
    monkeypatch.setattr(teacher, "pipe", lambda **values: output)
    monkeypatch.setattr(teacher, "_encode", lambda captions: None)
    monkeypatch.setattr(teacher, "_arguments", dict)
    drawings = teacher.draw(["a cat"] * 4, range(4), 64)
    reasons = ["black picture", "one flat colour", "unsafe picture", ""]
    assert [drawing.reason for drawing in drawings] == reasons
    assert [drawing.image is None for drawing in drawings] == [True, True, True, False]


def test_a_compiled_pipeline_always_sees_whole_batches(tiny, monkeypatch) -> None:
    monkeypatch.setattr("pipeline.teachers.pipelines._speed_up", lambda denoiser, config: None)
    teacher, pipe = build(tiny(compile=True, batch_size=4)), Crowded(4)
    monkeypatch.setattr(teacher, "pipe", pipe)
    monkeypatch.setattr(teacher, "_encode", lambda captions: None)
    monkeypatch.setattr(teacher, "_arguments", dict)
    assert len(teacher.draw(["a cat"] * 5, range(20, 25), 16)) == 5
    assert pipe.sizes == [4, 4]


def test_shorter_texts_are_padded_and_masked() -> None:
    long = {"prompt_embeds": torch.ones(1, 5, 2), "prompt_embeds_mask": torch.ones(1, 5).long()}
    short = {"prompt_embeds": torch.ones(1, 3, 2)}  # its mask hides nothing
    pooled = {"pooled": torch.ones(1, 4)}
    batch = joined([{**long, **pooled}, {**short, **pooled}])
    assert batch["prompt_embeds"].sum((1, 2)).tolist() == [10, 6]
    assert batch["prompt_embeds_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert batch["pooled"].shape == (2, 4)
    assert len(joined([{"x": [torch.ones(2)]}, {"x": [torch.ones(3)]}])["x"]) == 2


def test_its_facts_name_the_folder_but_not_the_machine(tiny) -> None:
    facts = build(tiny()).facts
    assert (facts.name, facts.revision, facts.licence) == ("tiny-FluxPipeline", "local", "MIT")
    assert (facts.num_steps, facts.guidance) == (2, 0.0)
    assert (facts.pipeline, facts.precision) == ("FluxPipeline", "float32")


def test_how_it_is_run_names_no_other_table(tiny) -> None:
    plain = identity(tiny())
    how = {"batch_size": 3, "text_batch_size": 1, "compile": True, "offload": "model"}
    assert identity(tiny(**how, attention_backend="native")) == plain
    assert identity(tiny(num_steps=3)) != plain
    assert identity(tiny(arguments={"sigmas": None})) != plain


def test_a_folder_is_known_by_its_weights_wherever_it_stands(tiny, tmp_path) -> None:
    config = tiny()
    moved = shutil.copytree(config.repository, tmp_path / "moved")
    copy = config.model_copy(update={"repository": str(moved)})
    assert identity(copy) == identity(config)
    weights = next((moved / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert identity(copy) != identity(config)


def test_wrong_sizes_and_numbers_are_named(tiny) -> None:
    with pytest.raises(ValueError, match="image size 72 must be a multiple of 16"):
        build(tiny()).draw(["a cat"], [0], 72)
    with pytest.raises(ValueError, match="1 captions with 2 seeds"):
        build(tiny()).draw(["a cat"], [0, 1], 64)
