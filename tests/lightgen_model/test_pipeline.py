"""The pipeline as diffusers users call it: on a small student that draws noise, but its own."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers.callbacks import PipelineCallback
from PIL import Image
from torch import Tensor

from lightgen_model import checkpoint
from lightgen_model.config import SamplingConfig
from lightgen_model.pipeline import LightGenPipeline
from lightgen_model.sampling import sample
from lightgen_model.text_encoder import TextEncoder
from tests.lightgen_model.conftest import small, student

ROOT = Path(__file__).parent.parent.parent
MODELS = ROOT / "infra" / "models" / "shapes"
ABOUT = {name: str(MODELS / name) for name in ("autoencoder", "text_encoder")}
FEW = {"num_inference_steps": 4, "num_head_steps": 2, "output_type": "pt"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training checkpoint."""
    path = tmp_path_factory.mktemp("checkpoint")
    model = student(small())
    checkpoint.save(path, model.config, model.state_dict(), ABOUT)
    return path


@pytest.fixture(scope="module")
def pipe(folder: Path) -> LightGenPipeline:
    pipe = LightGenPipeline.from_checkpoint(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def saved(pipe: LightGenPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved")
    pipe.save_pretrained(path)
    return path


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def draw(pipe: LightGenPipeline, prompt: Any, *seeds: int, **rest: Any) -> Any:
    return pipe(prompt, generator=[seed(s) for s in seeds], **{**FEW, **rest}).images


def close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() < 1e-4)


def picture_and_mask(height: int = 64, width: int = 96) -> tuple[Image.Image, Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[3:20, 30:50] = 255
    return Image.fromarray(pixels), Image.fromarray(mask)


# --- folders ------------------------------------------------------------------------------------


def test_a_saved_pipeline_draws_the_same_pictures(pipe: LightGenPipeline, saved: Path) -> None:
    again = LightGenPipeline.from_pretrained(saved)
    again.set_progress_bar_config(disable=True)
    assert close(draw(pipe, "a red circle", 0), draw(again, "a red circle", 0))
    names = {str(file.relative_to(saved)) for file in saved.rglob("*") if file.is_file()}
    assert {"README.md", "model_index.json", "student/config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".py"))]


def test_the_code_of_the_model_card_runs_in_a_fresh_process(saved: Path, tmp_path: Path) -> None:
    card = (saved / "README.md").read_text("utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(saved))
    code = code.replace("generator=", "num_inference_steps=2, num_head_steps=2, generator=")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "picture.png").size == (64, 64)


@pytest.mark.parametrize("save", [{"push_to_hub": True}, {"safe_serialization": False}])
def test_a_folder_is_saved_whole_or_refused(
    pipe: LightGenPipeline, tmp_path: Path, save: dict[str, bool]
) -> None:
    with pytest.raises(ValueError, match="is refused"):
        pipe.save_pretrained(tmp_path / "new", **save)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "load",
    [
        {"trust_remote_code": True},
        {"use_safetensors": False},
        {"custom_pipeline": "somebody/code"},
        {"dtype": torch.float16},
        {"dtype": {"default": torch.float16}},
    ],
    ids=str,
)
def test_pickles_remote_code_and_a_half_precision_t5_are_refused(
    saved: Path, load: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"refused|T5 overflows"):
        LightGenPipeline.from_pretrained(saved, **load)


def test_bfloat16_draws_nearly_the_same(pipe: LightGenPipeline, saved: Path) -> None:
    half = LightGenPipeline.from_pretrained(saved, dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    parts = (half.student, half.vae, half.text_encoder)
    assert {part.dtype for part in parts} == {torch.bfloat16}
    picture = draw(half, "a red circle", 0)
    assert picture.dtype == torch.float32
    assert (picture - draw(pipe, "a red circle", 0)).abs().mean() < 0.05
    with pytest.raises(ValueError, match="T5 overflows"):
        half.to("cpu", torch.float16)
    assert half.to(torch.float32).student.dtype == torch.float32


def test_a_checkpoint_that_names_no_autoencoder_says_so(tmp_path: Path) -> None:
    model = student(small())
    checkpoint.save(tmp_path, model.config, model.state_dict(), {})
    with pytest.raises(ValueError, match=r"names no autoencoder under `about`; give vae="):
        LightGenPipeline.from_checkpoint(tmp_path)


# --- a picture is its own -----------------------------------------------------------------------


def test_a_picture_does_not_depend_on_its_batch(pipe: LightGenPipeline) -> None:
    alone = draw(pipe, "a red circle", 7)
    assert close(alone[0], draw(pipe, ["blue", "a red circle", ""], 1, 7, 2)[1])
    assert not close(alone[0], draw(pipe, "a red circle", 8)[0])
    assert not close(alone[0], draw(pipe, "blue", 7)[0])


def test_a_pipeline_draws_what_the_sampler_draws(pipe: LightGenPipeline) -> None:
    encoder = TextEncoder(pipe.text_encoder, pipe.tokenizer, pipe.values.text_length)
    states, lengths = encoder.encode(["a red circle"])
    values = SamplingConfig(num_iterations=4, head_steps=2)
    expected = sample(pipe.student.network, states, lengths, values, image_size=(32, 64), seeds=[3])
    options = {"height": 32, "width": 64, "output_type": "latent"}
    assert torch.equal(draw(pipe, "a red circle", 3, **options), expected)
    alone = pipe("a red circle", generator=seed(3), **{**FEW, **options}).images
    assert torch.equal(alone, expected)
    assert not alone.is_inference()


def test_one_generator_serves_many_images_and_goes_on(pipe: LightGenPipeline) -> None:
    generator = seed(3)
    first = pipe("blue", generator=generator, num_images_per_prompt=2, **FEW).images
    assert close(first[:1], draw(pipe, "blue", 3))
    assert not close(first[0], first[1])
    assert not close(
        first, pipe("blue", generator=generator, num_images_per_prompt=2, **FEW).images
    )
    again = pipe("blue", generator=seed(3), num_images_per_prompt=2, **FEW).images
    assert torch.equal(first, again)


def test_without_a_generator_manual_seed_decides(pipe: LightGenPipeline) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        one = pipe("blue", **FEW).images
        other = pipe("blue", **FEW).images
        torch.manual_seed(5)
        assert torch.equal(one, pipe("blue", **FEW).images)
    assert not close(one, other)


# --- text ---------------------------------------------------------------------------------------


def test_the_empty_prompt_is_the_null_text(pipe: LightGenPipeline) -> None:
    empty = draw(pipe, "", 0)
    assert torch.equal(empty, draw(pipe, "  ", 0))
    # Without guidance towards the text only the null text is left, whatever the prompt.
    assert close(empty, draw(pipe, "a red circle", 0, guidance_scale=0))
    assert close(empty, draw(pipe, "", 0, guidance_scale=1))


def test_embeddings_stand_in_for_a_prompt_and_for_t5(pipe: LightGenPipeline) -> None:
    prompts = ["a red circle", ""]
    embeds, mask = pipe.encode_prompt(prompts)
    bare = LightGenPipeline(pipe.vae, None, None, pipe.student)
    bare.set_progress_bar_config(disable=True)
    given = {"prompt_embeds": embeds, "prompt_attention_mask": mask}
    assert torch.equal(draw(bare, None, 0, 1, **given), draw(pipe, prompts, 0, 1))
    with pytest.raises(ValueError, match="no text encoder; give prompt_embeds"):
        draw(bare, "a red circle", 0)


def test_what_a_long_prompt_loses_is_said(
    pipe: LightGenPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "lightgen_model.pipeline"):
        pipe.encode_prompt("a red circle")
        assert caplog.messages == []
        pipe.encode_prompt(" ".join(["red"] * 14 + ["blue", "green"]))
    (message,) = caplog.messages
    assert message.startswith("The student reads 16 text tokens; cut off is: ")
    assert "green" in message


# --- outputs ------------------------------------------------------------------------------------


def test_each_output_type_is_the_same_picture(pipe: LightGenPipeline) -> None:
    options = {"height": 32, "width": 64}
    pt = draw(pipe, "blue", 0, **options)
    assert pt.shape == (1, 3, 32, 64)
    assert 0 <= pt.min() < pt.max() <= 1
    array = draw(pipe, "blue", 0, output_type="np", **options)
    assert np.array_equal(array[0], pt[0].permute(1, 2, 0).numpy())
    (pil,) = draw(pipe, "blue", 0, output_type="pil", **options)
    assert np.array_equal(np.asarray(pil), (array[0] * 255).round().astype(np.uint8))
    (images,) = pipe("blue", generator=seed(0), return_dict=False, **options, **FEW)
    assert torch.equal(images, pt)


def test_images_of_a_prompt_stand_together(pipe: LightGenPipeline) -> None:
    many = draw(pipe, ["blue", "red"], 0, 1, 2, 3, num_images_per_prompt=2)
    assert close(many[1:2], draw(pipe, "blue", 1))
    assert close(many[2:3], draw(pipe, "red", 2))


# --- steps --------------------------------------------------------------------------------------


def test_a_callback_sees_every_step(pipe: LightGenPipeline) -> None:
    seen: list[tuple[int, int]] = []

    def look(pipe: Any, step: int, left: int, given: dict[str, Tensor]) -> dict[str, Tensor]:
        assert given["latents"].shape == (1, pipe.values.latent_channels, 8, 8)
        seen.append((step, left))
        return given

    with_callback = draw(pipe, "blue", 0, callback_on_step_end=look)
    assert seen == [(0, 3), (1, 2), (2, 1), (3, 0)]
    assert torch.equal(with_callback, draw(pipe, "blue", 0))
    assert pipe.num_timesteps == 4


def test_a_callback_may_stop_the_drawing(pipe: LightGenPipeline) -> None:
    steps: list[int] = []

    class Stop(PipelineCallback):  # type: ignore[misc]
        tensor_inputs: tuple[str, ...] = ()

        def callback_fn(self, pipe: Any, step: int, left: int, given: dict[str, Any]) -> Any:
            assert given == {}
            steps.append(step)
            pipe._interrupt = step == 1
            return given

    part = draw(pipe, "blue", 0, callback_on_step_end=Stop())
    assert steps == [0, 1]
    assert part.shape == (1, 3, 64, 64)
    assert not close(part, draw(pipe, "blue", 0))


def test_a_callback_that_replaces_the_latents_is_refused(pipe: LightGenPipeline) -> None:
    with pytest.raises(ValueError, match="replaced the latents"):
        draw(pipe, "blue", 0, callback_on_step_end=lambda *_: {"latents": torch.zeros(1)})
    with pytest.raises(ValueError, match="tensor_inputs: noise; allowed: latents"):
        draw(pipe, "blue", 0, callback_on_step_end_tensor_inputs=["noise"])


def test_the_progress_bar_counts_steps_and_can_be_off(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = LightGenPipeline.from_checkpoint(folder)
    capsys.readouterr()
    draw(loud, "blue", 0)
    assert "4/4" in capsys.readouterr().err
    loud.set_progress_bar_config(disable=True)
    draw(loud, "blue", 0)
    assert capsys.readouterr().err == ""


# --- inpainting ---------------------------------------------------------------------------------


def test_outside_the_mask_no_pixel_changes(pipe: LightGenPipeline) -> None:
    image, mask = picture_and_mask()
    (drawn,) = draw(pipe, "blue", 0, image=image, mask_image=mask, output_type="pil")
    changed = (np.asarray(drawn) != np.asarray(image)).any(-1)
    assert not changed[np.asarray(mask) == 0].any()
    assert changed[np.asarray(mask) == 255].mean() > 0.9


def test_known_tokens_are_untouched(pipe: LightGenPipeline) -> None:
    image, mask = picture_and_mask()
    options = {"image": image, "mask_image": mask, "output_type": "latent"}
    one, other = (draw(pipe, "blue", s, **options) for s in (0, 1))
    same = (one == other).all(1)[0]  # (h, w)
    # The mask touches tokens of rows 0..1 and columns 1..3; one more around them is drawn anew.
    cells = 16 // pipe.values.latent_stride
    assert same[3 * cells :].all()
    assert same[:, 5 * cells :].all()
    assert not same[: 3 * cells, : 5 * cells].any()


def test_masks_of_different_sizes_share_a_batch(pipe: LightGenPipeline) -> None:
    image, mask = picture_and_mask()
    everything = Image.new("L", mask.size, 255)
    both = draw(
        pipe, ["blue", "red"], 0, 1, image=[image, image], mask_image=[mask, everything],
        num_inference_steps=20,
    )  # fmt: skip
    options = {"image": image, "num_inference_steps": 20}
    assert close(both[:1], draw(pipe, "blue", 0, mask_image=mask, **options))
    assert close(both[1:], draw(pipe, "red", 1, mask_image=everything, **options))


# --- wrong calls --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"height": 72}, "height 72 must be a multiple of the token size 16; nearest: 64 and 80"),
        ({"width": 8}, "width 8 must be a multiple of the token size 16; nearest: 16"),
        ({"width": 64.0}, "width is a float; allowed: a whole number"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"prompt": ["blue", 3]}, r"prompt\[1\] is a int; allowed: strings only"),
        ({"prompt": 3}, "prompt is a int; allowed: a string or a list"),
        ({"prompt": None}, "prompt and prompt_embeds: give the one or the other"),
        ({"num_inference_steps": 17}, "num_inference_steps: 17 iterations for 16 tokens"),
        ({"num_inference_steps": 0}, "num_inference_steps: 0 iterations"),
        ({"num_head_steps": 0}, "num_head_steps: 0; Input should be greater"),
        ({"guidance_scale": -1}, "guidance_scale: -1; Input should be greater than or equal to 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale: nan; Input"),
        ({"temperature": -1.0}, "temperature: -1.0; Input should be"),
        ({"solver": "ddim"}, "'ddim' does not fit a flow head; allowed: euler, heun"),
        ({"num_head_steps": 2, "last_head_steps": 3}, "last_head_steps: 3; allowed: 1 to"),
        ({"generator": [torch.Generator()] * 2}, "generator: 2 for 1 images; give one"),
        ({"generator": [3]}, r"generator\[0\] is a int; allowed: torch.Generator"),
        ({"negative_prompt": "blurry"}, "negative_prompt is not supported"),
        ({"output_type": "jpeg"}, "'jpeg'; allowed: pil, np, pt, latent"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt: 0; at least 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_a_wrong_call_is_one_sentence_before_any_work(
    pipe: LightGenPipeline, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any], sentence: str
) -> None:
    monkeypatch.setattr(LightGenPipeline, "encode_prompt", None)
    with pytest.raises(ValueError, match=sentence) as caught:
        pipe(**{"prompt": "blue", **wrong})
    assert "\n" not in str(caught.value)


def test_wrong_pictures_are_named(pipe: LightGenPipeline) -> None:
    image, mask = picture_and_mask()
    wrong: dict[str, dict[str, Any]] = {
        "image without mask_image; inpainting needs both": {"image": image},
        "mask_image without image": {"mask_image": mask},
        "mask_image is 64 x 64 and image 96 x 64": {
            "image": image, "mask_image": Image.new("L", (64, 64), 255)
        },
        "image is 96 x 64 but asked for is 64 x 64": {
            "image": image, "mask_image": mask, "width": 64
        },
        "height 60 must be a multiple": {
            "image": image.resize((96, 60)), "mask_image": mask.resize((96, 60))
        },
        "image: 2 pictures for 1 prompts": {"image": [image] * 2, "mask_image": mask},
    }  # fmt: skip
    for sentence, call in wrong.items():
        with pytest.raises(ValueError, match=sentence):
            pipe("blue", **call)


# --- offloading ---------------------------------------------------------------------------------


def test_model_offloading_names_every_network_in_order(pipe: LightGenPipeline) -> None:
    networks = {n for n, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    assert set(pipe.model_cpu_offload_seq.split("->")) == networks
    if not torch.accelerator.is_available():
        with pytest.raises(RuntimeError, match="requires accelerator"):
            pipe.enable_model_cpu_offload()


def test_offloading_brings_every_network_that_draws(
    pipe: LightGenPipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole networks, with the CPU in the accelerator's place."""
    hooked = LightGenPipeline.from_checkpoint(folder)
    hooked.set_progress_bar_config(disable=True)
    hooked.enable_model_cpu_offload(device="cpu")
    met: list[str] = []
    for name in hooked.model_cpu_offload_seq.split("->"):
        hook = getattr(hooked, name)._hf_hook

        def bring(*args: Any, name: str = name, hook: Any = hook, **rest: Any) -> Any:
            met.append(name)
            return type(hook).pre_forward(hook, *args, **rest)

        monkeypatch.setattr(hook, "pre_forward", bring)
    image, mask = picture_and_mask()
    options = {"image": image, "mask_image": mask}
    assert close(draw(hooked, "blue", 0, **options), draw(pipe, "blue", 0, **options))
    assert met == ["text_encoder", "vae", "student", "vae"]


def test_layers_of_the_frozen_parts_may_be_offloaded(pipe: LightGenPipeline, folder: Path) -> None:
    hooked = LightGenPipeline.from_checkpoint(folder)
    hooked.set_progress_bar_config(disable=True)
    for name in {"vae", "text_encoder"} - set(hooked._exclude_from_cpu_offload):
        cpu_offload(getattr(hooked, name), torch.device("cpu"))
    assert hooked.vae.device.type == "meta"
    assert close(draw(hooked, "blue", 0), draw(pipe, "blue", 0))
