"""Values of a run become a loaded pipeline, or a sentence that names what is wrong."""

import inspect

import diffusers
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
