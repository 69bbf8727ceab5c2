"""Values of a run become a loaded pipeline, or a sentence that names what is wrong."""

import inspect

import diffusers
import numpy as np
import pytest
import torch
import transformers

from pipeline.config import DiffusersTeacher, QuantizationConfig
from pipeline.teachers.diffusers import DiffusersDrawer
from pipeline.teachers.pipelines import CONDITIONS, bits, known_pipelines, load


@pytest.mark.parametrize("name", sorted(CONDITIONS))
def test_a_class_whose_text_is_encoded_beforehand_takes_it_back(name: str) -> None:
    assert name in known_pipelines()
    drawer = DiffusersDrawer.__new__(DiffusersDrawer)  # without its weights
    drawer.config = DiffusersTeacher(kind="diffusers", repository="none", licence="MIT")
    drawer.pipe = getattr(diffusers, name)
    assert set(CONDITIONS[name]) <= set(inspect.signature(drawer.pipe.__call__).parameters)
    assert inspect.Parameter.empty not in drawer._arguments().values()


def test_a_pipeline_is_loaded_in_its_precision(tiny) -> None:
    pipe = load(tiny(dtype="bfloat16"))
    assert {pipe.transformer.dtype, pipe.vae.dtype, pipe.text_encoder_2.dtype} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"pipeline": "FluxPipelin"}, r"no pipeline 'FluxPipelin'.*'FluxPipeline'"),
        ({"arguments": {"true_cfg_scal": 2.0}}, "'true_cfg_scal' is no argument.*true_cfg_scale"),
        ({"arguments": {"prompt": "x"}}, "'prompt' is no argument .* that a run may give"),
        ({"attention_backend": "flesh"}, "diffusers has no 'flesh', it has .*'flash'"),
        ({"attention_backend": "sage"}, "attention_backend: sage needs sageattention"),
        ({"offload": "model"}, "offload: 'model' moves weights off a GPU, and none is visible"),
        ({"quantization": {"method": "bitsandbytes_4bit", "components": ["unet"]}},
         "has no 'unet', it has .*'transformer'"),
    ],
)  # fmt: skip
@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_wrong_values_are_named(tiny, values: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load(tiny(**values))


def test_a_backend_of_attention_is_set_on_the_denoiser(tiny) -> None:
    denoiser = load(tiny(attention_backend="_native_math")).transformer
    backends = {
        str(module.processor._attention_backend)
        for module in denoiser.modules()
        if hasattr(module, "processor")
    }
    assert len(backends) == 1
    assert "math" in backends.pop().lower()


@pytest.mark.parametrize("backend", ["native", "_native_math", "flex"])
def test_another_backend_of_attention_draws_the_same_picture(tiny, backend: str) -> None:
    (plain,) = DiffusersDrawer(tiny()).draw(["a cat"], [1], 64)
    (other,) = DiffusersDrawer(tiny(attention_backend=backend)).draw(["a cat"], [1], 64)
    difference = np.asarray(plain.image, int) - np.asarray(other.image, int)
    assert np.abs(difference).max() <= 1


def test_repeated_blocks_are_compiled_and_nothing_else(tiny, monkeypatch) -> None:
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **values: compiled.append(self))
    load(tiny(compile=True))
    names = {type(module).__name__ for module in compiled}
    assert names == {"FluxTransformerBlock", "FluxSingleTransformerBlock"}


def test_fewer_bits_are_asked_of_the_library_that_loads_the_component(tiny) -> None:
    config = tiny(dtype="bfloat16")
    four = bits(transformers, config, QuantizationConfig(method="bitsandbytes_4bit"))
    assert isinstance(four, transformers.BitsAndBytesConfig)
    assert four.load_in_4bit
    assert four.bnb_4bit_compute_dtype == torch.bfloat16
    eight = bits(transformers, config, QuantizationConfig(method="bitsandbytes_8bit"))
    assert eight.load_in_8bit


@pytest.mark.parametrize("weights", ["int8", "float8"])
def test_fewer_bits_draw_nearly_the_same_picture(tiny, weights: str) -> None:
    pytest.importorskip("torchao")
    bits = {"method": "torchao", "weights": weights, "components": ("transformer", "text_encoder")}
    (plain,) = DiffusersDrawer(tiny()).draw(["a cat"], [1], 64)
    drawer = DiffusersDrawer(tiny(quantization=bits))
    (coarse,) = drawer.draw(["a cat"], [1], 64)
    difference = np.asarray(plain.image, int) - np.asarray(coarse.image, int)
    assert 0 < np.abs(difference).mean() < 16
    parts = dict(drawer.pipe.text_encoder.named_modules())
    text = next(layer for name, layer in parts.items() if name.endswith("q_proj"))
    layers = (drawer.pipe.transformer.transformer_blocks[0].attn.to_q, text)
    assert {type(layer.weight).__name__ for layer in layers} == {f"{weights.capitalize()}Tensor"}
    assert drawer.facts.precision == f"float32 torchao {weights}"
