"""What a caller of the pipeline gives, checked before any work.

In:    arguments as diffusers users write them.
Out:   the same in one form each; ValueError that names the argument, its value and what is allowed.

Shapes: B pictures, L text tokens, E text width.
"""

from collections.abc import Mapping, Sequence

import torch
from pydantic import ValidationError
from torch import Tensor

from lightgen_model.config import ModelConfig, SamplingConfig

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
Generators = torch.Generator | Sequence[torch.Generator] | None
MOST_ITERATIONS = 64  # the published number of steps, for a caller who gives none


def read_prompts(prompt: object) -> list[str]:
    """One prompt or a list of them, as a list."""
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list | tuple):
        raise ValueError(
            f"prompt is a {type(prompt).__name__}; allowed: a string or a list of them"
        )
    if not prompt:
        raise ValueError("prompt is an empty list; give at least one string")
    for index, one in enumerate(prompt):
        if not isinstance(one, str):
            raise ValueError(f"prompt[{index}] is a {type(one).__name__}; allowed: strings only")
    return list(prompt)


def read_embeds(embeds: Tensor, mask: Tensor | None, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """States (B, L, E) and their bool mask (B, L); without a mask every state counts."""
    wanted = (config.text_length, config.text_width)
    if embeds.ndim != 3 or tuple(embeds.shape[1:]) != wanted:
        raise ValueError(
            f"prompt_embeds of shape {tuple(embeds.shape)}; allowed: (number of prompts, "
            f"{wanted[0]}, {wanted[1]})"
        )
    if mask is None:
        return embeds, torch.ones(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
    if mask.shape != embeds.shape[:2]:
        raise ValueError(
            f"prompt_attention_mask of shape {tuple(mask.shape)}; allowed: that of the "
            f"prompt_embeds, {tuple(embeds.shape[:2])}"
        )
    mask = mask.bool()
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("prompt_attention_mask has a hole; allowed: ones, then zeros")
    return embeds, mask


def count_prompts(
    prompt: object,
    embeds: Tensor | None,
    mask: Tensor | None,
    has_text_encoder: bool,
    config: ModelConfig,
) -> int:
    """Number of prompts; ValueError where there are none, or two kinds of them."""
    if (prompt is None) == (embeds is None):
        raise ValueError("prompt and prompt_embeds: give the one or the other")
    if embeds is not None:
        return len(read_embeds(embeds, mask, config)[0])
    if not has_text_encoder:
        raise ValueError("prompt: this pipeline has no text encoder; give prompt_embeds")
    return len(read_prompts(prompt))


def read_size(
    height: int | None, width: int | None, image: tuple[int, int] | None, config: ModelConfig
) -> tuple[int, int]:
    """(height, width): as given, or the image's, or that of the first training stage."""
    natural = image or (config.base_image_size, config.base_image_size)
    size = (
        read_side("height", natural[0] if height is None else height, config),
        read_side("width", natural[1] if width is None else width, config),
    )
    if image and size != image:
        raise ValueError(
            f"image is {image[1]} x {image[0]} but asked for is {size[1]} x {size[0]} (width x "
            "height); resize the image, or leave height and width out"
        )
    return size


def read_side(name: str, pixels: object, config: ModelConfig) -> int:
    """A height or width; ValueError that names the nearest sizes allowed."""
    unit = config.token_pixels
    if not isinstance(pixels, int) or isinstance(pixels, bool):
        raise ValueError(f"{name} is a {type(pixels).__name__}; allowed: a whole number of pixels")
    if pixels < unit or pixels % unit:
        below = max(pixels // unit, 0) * unit
        nearest = f"{below} and {below + unit}" if below else f"{unit}"
        raise ValueError(
            f"{name} {pixels} must be a multiple of the token size {unit}; nearest: {nearest}"
        )
    return pixels


def read_iterations(steps: int | None, num_tokens: int) -> int:
    """Autoregressive steps; by default one a token, at most 64."""
    if steps is None:
        return min(num_tokens, MOST_ITERATIONS)
    if not 1 <= steps <= num_tokens:
        raise ValueError(
            f"num_inference_steps: {steps} iterations for {num_tokens} tokens; allowed: "
            f"1 to {num_tokens}"
        )
    return steps


def read_generators(generator: Generators, num: int) -> list[torch.Generator]:
    """One generator on the CPU an image, so that no image depends on its neighbours.

    The first image of a generator takes it as it is, and so is what `sample` draws from this seed;
    every further one takes a seed from it.
    """
    # diffusers' convention: who gives no generator is served by torch.manual_seed.
    given = torch.default_generator if generator is None else generator
    each = [given] * num if isinstance(given, torch.Generator) else list(given)
    if len(each) != num:
        raise ValueError(f"generator: {len(each)} for {num} images; give one, or one an image")
    for index, one in enumerate(each):
        if not isinstance(one, torch.Generator):
            raise ValueError(
                f"generator[{index}] is a {type(one).__name__}; allowed: torch.Generator"
            )
    return _apart(each)


def _apart(generators: Sequence[torch.Generator]) -> list[torch.Generator]:
    seeds_of: dict[int, torch.Generator] = {}
    apart = []
    for one in generators:
        on_cpu = one.device.type == "cpu"
        if on_cpu and id(one) not in seeds_of:
            # Seeds come from a copy: the generator itself advances while its image is drawn.
            seeds_of[id(one)] = one.clone_state()
            apart.append(one)
        else:
            source = seeds_of.get(id(one), one)
            seed = torch.randint(2**63 - 1, (), generator=source, device=source.device)
            apart.append(torch.Generator().manual_seed(int(seed)))
    return apart


ARGUMENTS = {  # of the pipeline, where they have another name
    "num_iterations": "num_inference_steps",
    "head_steps": "num_head_steps",
    "guidance": "guidance_scale",
}


def read_sampling(**values: object) -> SamplingConfig:
    """The values of `SamplingConfig`; ValueError in one line that has the pipeline's names."""
    try:
        return SamplingConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        place = f"{ARGUMENTS.get(name, name)}: {values[name]!r}; " if name else ""
        raise ValueError(place + first["msg"].removeprefix("Value error, ")) from error


def check_call(output_type: str, num_images: int, negative_prompt: object) -> None:
    """ValueError for what no student can do."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type: {output_type!r}; allowed: {', '.join(OUTPUT_TYPES)}")
    if num_images < 1:
        raise ValueError(f"num_images_per_prompt: {num_images}; at least 1")
    if negative_prompt is not None:
        raise ValueError(
            "negative_prompt is not supported: the student is guided away from its learned null "
            "text, and was trained with no other; leave negative_prompt out"
        )


def refuse_half(dtype: object) -> None:
    """T5's activations overflow in float16 (lightgen.md 4.2)."""
    if dtype is torch.float16:
        raise ValueError(
            "float16: T5 overflows in it; allowed: bfloat16 and float32, or with from_pretrained "
            'dtype={"text_encoder": torch.bfloat16, "default": torch.float16}'
        )


def check_loading(options: Mapping[str, object]) -> None:
    """ValueError for options of `from_pretrained` that run code or that T5 cannot bear."""
    for name, value in (("trust_remote_code", True), ("use_safetensors", False)):
        if options.get(name) is value:
            raise ValueError(f"{name}={value} is refused: safetensors only, and no remote code")
    if options.get("custom_pipeline") is not None:
        raise ValueError("custom_pipeline is refused: no remote code")
    dtype = options.get("dtype", options.get("torch_dtype"))
    if isinstance(dtype, Mapping):
        dtype = dtype.get("text_encoder", dtype.get("default"))
    if options.get("text_encoder", "") is not None:
        refuse_half(dtype)


def check_saving(options: Mapping[str, object]) -> None:
    """ValueError for options of `save_pretrained` that a folder with a model card cannot have."""
    if options.get("push_to_hub"):
        raise ValueError(
            "push_to_hub is refused: save to a folder, read its README.md, then upload it"
        )
    if options.get("safe_serialization") is False:
        raise ValueError("safe_serialization=False is refused: weights are safetensors only")
