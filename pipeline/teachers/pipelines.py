"""Pipelines of diffusers, loaded as a run says: weights, bits, place, speed.

In:    the teacher's config. Weights come from a folder or from the hub's cache at the pinned
       revision; nothing is downloaded and no remote code is run.
Out:   a pipeline ready to be called, on the GPU where there is one.

Quantisation libraries load only where they are asked for.
"""

import difflib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from huggingface_hub import hf_hub_download

from pipeline.config import DiffusersTeacher, QuantizationConfig
from pipeline.teachers.requirements import missing_backend

DENOISERS = ("transformer", "unet")
# What `encode_prompt` returns, under the names by which the pipeline's call takes it. Pipelines
# that are not here are given their captions as text.
CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "FluxPipeline": ("prompt_embeds", "pooled_prompt_embeds"),
    "Flux2Pipeline": ("prompt_embeds",),
    "Flux2KleinPipeline": ("prompt_embeds",),
    "StableDiffusion3Pipeline": (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ),
    "QwenImagePipeline": ("prompt_embeds", "prompt_embeds_mask"),
    "ZImagePipeline": ("prompt_embeds", "negative_prompt_embeds"),
    "SanaSprintPipeline": ("prompt_embeds", "prompt_attention_mask"),
    **dict.fromkeys(
        ("SanaPipeline", "PixArtAlphaPipeline", "PixArtSigmaPipeline", "Lumina2Pipeline"),
        (
            "prompt_embeds",
            "prompt_attention_mask",
            "negative_prompt_embeds",
            "negative_prompt_attention_mask",
        ),
    ),
}


def load(config: DiffusersTeacher) -> Any:
    """The pipeline; a name, argument or backend that it does not have is a `ValueError`."""
    made = _class(config)
    check_arguments(made, config.arguments)
    if wrong := missing_backend(config.attention_backend):
        raise ValueError(wrong)
    values: dict[str, Any] = {}
    if config.quantization:
        values["quantization_config"] = _quantized(config, config.quantization)
    pipe = made.from_pretrained(
        config.repository,
        revision=config.revision,
        dtype=getattr(torch, config.dtype),
        use_safetensors=True,
        local_files_only=True,
        **values,
    )
    pipe.set_progress_bar_config(disable=True)
    _place(pipe, config)
    for name in DENOISERS:
        if getattr(pipe, name, None) is not None:
            _speed_up(getattr(pipe, name), config)
    return pipe


def known_pipelines() -> list[str]:
    """The pipelines that draw from text, by name."""
    return [name for name in dir(diffusers) if name.endswith("Pipeline")]


def _class(config: DiffusersTeacher) -> Any:
    known = known_pipelines()
    if config.pipeline not in known:
        close = difflib.get_close_matches(config.pipeline, known, n=3)
        raise ValueError(
            f"images.teacher.pipeline: diffusers {diffusers.__version__} has no pipeline "
            f"{config.pipeline!r}; close names: {close}"
        )
    return getattr(diffusers, config.pipeline)


def check_arguments(made: Callable[..., Any], arguments: Mapping[str, object]) -> None:
    """The call takes them and we do not give them ourselves."""
    known = set(inspect.signature(made.__call__).parameters)  # type: ignore[operator]
    ours = {"prompt", "height", "width", "num_inference_steps", "guidance_scale", "generator"}
    for name in arguments:
        if name not in known or name in ours | {"self", "output_type", "return_dict"}:
            close = difflib.get_close_matches(name, known - ours, n=3)
            raise ValueError(
                f"images.teacher.arguments: {name!r} is no argument of "
                f"{made.__name__} that a run may give; close names: {close}"
            )


def _place(pipe: Any, config: DiffusersTeacher) -> None:
    if not torch.cuda.is_available():
        if config.offload != "none":
            raise ValueError(
                f"images.teacher.offload: {config.offload!r} moves weights off a GPU, "
                "and none is visible"
            )
        pipe.to("cpu")
    elif config.offload == "model":
        pipe.enable_model_cpu_offload()
    elif config.offload == "sequential":
        pipe.enable_sequential_cpu_offload()
    else:
        pipe.to("cuda")


def _speed_up(denoiser: Any, config: DiffusersTeacher) -> None:
    if config.attention_backend:
        denoiser.set_attention_backend(config.attention_backend)
    if config.compile:
        denoiser.compile_repeated_blocks(fullgraph=True)


# --- quantisation -------------------------------------------------------------------------------


def _quantized(config: DiffusersTeacher, quantization: QuantizationConfig) -> Any:
    """A config for each component, of the library that the component is loaded by."""
    components = _components(config)
    mapping = {}
    for name in quantization.components:
        if name not in components:
            raise ValueError(
                f"images.teacher.quantization.components: {config.repository} has no {name!r}, "
                f"it has {sorted(components)}"
            )
        library = transformers if components[name] == "transformers" else diffusers
        mapping[name] = bits(library, config, quantization)
    return diffusers.PipelineQuantizationConfig(quant_mapping=mapping)


def bits(library: Any, config: DiffusersTeacher, quantization: QuantizationConfig) -> Any:
    dtype = getattr(torch, config.dtype)
    match quantization.method:
        case "bitsandbytes_4bit":
            return library.BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        case "bitsandbytes_8bit":
            return library.BitsAndBytesConfig(load_in_8bit=True)
        case "torchao":
            import torchao.quantization as torchao

            named = {"int8": "Int8", "int4": "Int4", "float8": "Float8"}[quantization.weights]
            return library.TorchAoConfig(getattr(torchao, f"{named}WeightOnlyConfig")())


def _components(config: DiffusersTeacher) -> dict[str, str]:
    """Which library loads each component, from the pipeline's index."""
    folder = Path(config.repository)
    index = folder / "model_index.json"
    if not folder.is_dir():
        index = Path(
            hf_hub_download(
                config.repository,
                "model_index.json",
                revision=config.revision,
                local_files_only=True,
            )
        )
    entries: dict[str, Any] = json.loads(index.read_text("utf-8"))
    return {
        name: entry[0] for name, entry in entries.items() if isinstance(entry, list) and entry[0]
    }
