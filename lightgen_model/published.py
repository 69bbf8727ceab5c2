"""The published checkpoint layout: a file or state dict of the released code to a student and back.

In:    a `.pth` with the keys model, model_ema, optimizer, epoch, scaler, args; or a bare state dict
       in that naming, as a pickle, as safetensors, or in memory.
Out:   a `LightGen` in eval mode; or a state dict in the published naming.

The released sampling scripts draw with the raw weights (`model`) although the averaged ones
(`model_ema`) lie beside them (lightgen.md section 0, item 12), so raw is the default here.
The layout is lightgen.md 5.3. Sizes are read from the shapes; what no shape tells is an argument.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lightgen_model.config import HeadConfig, ModelConfig
from lightgen_model.model import LightGen
from lightgen_model.weights import read_pickle, read_safetensors, refuse_misfits

Part = Literal["model", "model_ema"]
# Heads are in no shape. These are the widths of the published sizes: base, large, huge.
PUBLISHED_HEADS = {768: 12, 1024: 16, 1280: 16}
HEAD_NET, THEIR_HEAD_NET = "head.net.", "diffloss.net."

# Ours to theirs. Inside a transformer block both use the same names.
NAMES = {
    "encoder_in": "z_proj",
    "encoder_in_norm": "z_proj_ln",
    "encoder_positions": "encoder_pos_embed_learned",
    "encoder_blocks": "encoder_blocks",
    "encoder_norm": "encoder_norm",
    "decoder_in": "decoder_embed",
    "mask_token": "mask_token",
    "decoder_positions": "decoder_pos_embed_learned",
    "decoder_blocks": "decoder_blocks",
    "decoder_norm": "decoder_norm",
    "text_in": "text_emb.text_proj.linear_1",
    "text_out": "text_emb.text_proj.linear_2",
    "aligner_blocks": "text_emb.text_aligner",
    "aligner_norm": "text_emb.text_aligner_norm",
    "null_text": "fake_latent",
    "cross_in": "last_embed",
    "cross_positions": "last_pos_embed_learned",
    "cross_blocks": "cross_attn_blocks",
    "cross_norm": "cross_norm",
}
HEAD_NAMES = {
    "time_embed.fc1": "time_embed.mlp.0",
    "time_embed.fc2": "time_embed.mlp.2",
    "condition_embed": "cond_embed",
    "input": "input_proj",
    "final.modulation": "final_layer.adaLN_modulation.1",
    "final.linear": "final_layer.linear",
}
HEAD_BLOCK_NAMES = {
    "norm": "in_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "modulation": "adaLN_modulation.1",
}


def load_published(
    source: str | Path | Mapping[str, object],
    *,
    weights: Part = "model",
    num_heads: int | None = None,
    patch_size: int = 2,
    latent_stride: int = 8,
    text_length: int = 128,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> LightGen:
    """A student in eval mode from a published file or state dict; ValueError names what misfits.

    `weights` chooses raw or averaged ones. `num_heads` is needed for a width that is no published
    one. `patch_size` and `latent_stride` are in latent cells and pixels.
    """
    place = str(source) if isinstance(source, str | Path) else "the state dict"
    state = read_state(source, weights)
    config = infer_config(
        place,
        state,
        num_heads=num_heads,
        patch_size=patch_size,
        latent_stride=latent_stride,
        text_length=text_length,
    )
    with torch.device("meta"):
        model = LightGen(config)
    theirs = {name: published_name(name) for name in model.state_dict()}
    wanted = {theirs[name]: tensor.shape for name, tensor in model.state_dict().items()}
    tensors = refuse_misfits(place, wanted, state)
    ours = {name: tensors[other].to(device, dtype) for name, other in theirs.items()}
    model.load_state_dict(ours, assign=True)
    return model.eval().requires_grad_(False)


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict in the published naming; ValueError for a tensor the published net lacks."""
    return {published_name(name): tensor for name, tensor in state.items()}


def published_name(name: str) -> str:
    """`encoder_in.weight` is `z_proj.weight`, and so on."""
    module, _, leaf = name.rpartition(".")
    if name.startswith(f"{HEAD_NET}blocks."):
        index, part = module.removeprefix(f"{HEAD_NET}blocks.").split(".")
        if part in HEAD_BLOCK_NAMES:
            return f"{THEIR_HEAD_NET}res_blocks.{index}.{HEAD_BLOCK_NAMES[part]}.{leaf}"
    elif (part := module.removeprefix(HEAD_NET)) in HEAD_NAMES:
        return f"{THEIR_HEAD_NET}{HEAD_NAMES[part]}.{leaf}"
    first, dot, rest = name.partition(".")
    if first not in NAMES:
        raise ValueError(f"{name}: the published network has no such tensor")
    return f"{NAMES[first]}{dot}{rest}"


def read_state(source: str | Path | Mapping[str, object], part: Part) -> Mapping[str, object]:
    """The chosen state dict of a file, of what a file holds, or the one given."""
    values: object = source
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise ValueError(f"{path}: no such file")
        safe = path.suffix == ".safetensors"
        values = read_safetensors(path) if safe else read_pickle(path)
    place = source if isinstance(source, str | Path) else "the state dict"
    if isinstance(values, Mapping) and ("model" in values or "model_ema" in values):
        if not isinstance(values.get(part), Mapping):
            raise ValueError(f"{place} has no {part}; it has {', '.join(sorted(values))}")
        values = values[part]
    if not isinstance(values, Mapping):
        raise ValueError(f"{place} holds a {type(values).__name__}, not tensors by name")
    return values


def infer_config(
    place: str,
    state: Mapping[str, object],
    *,
    num_heads: int | None,
    patch_size: int,
    latent_stride: int,
    text_length: int,
) -> ModelConfig:
    """The sizes, from the shapes of a few tensors and the number of blocks."""
    width, token_dim = _matrix(place, state, "z_proj.weight")
    hidden, _ = _matrix(place, state, "decoder_blocks.0.mlp.fc1.weight")
    _, text_width = _matrix(place, state, "text_emb.text_proj.linear_1.weight")
    head_width, _ = _matrix(place, state, "diffloss.net.cond_embed.weight")
    table = _shape(place, state, "encoder_pos_embed_learned", 3)[1]
    side = round(table**0.5)
    if side**2 != table or token_dim % patch_size**2:
        raise ValueError(
            f"{place}: a position table of {table} entries and tokens of {token_dim} dims; the "
            f"table must be square, the dims a multiple of the patch {patch_size} x {patch_size}"
        )
    if num_heads is None and width not in PUBLISHED_HEADS:
        raise ValueError(
            f"{place}: no shape tells the number of heads at width {width}; give num_heads "
            f"(known without: {PUBLISHED_HEADS})"
        )
    return ModelConfig(
        base_image_size=side * patch_size * latent_stride,
        latent_channels=token_dim // patch_size**2,
        latent_stride=latent_stride,
        patch_size=patch_size,
        width=width,
        num_heads=num_heads or PUBLISHED_HEADS[width],
        mlp_ratio=hidden / width,
        encoder_depth=_depth(state, "encoder_blocks."),
        decoder_depth=_depth(state, "decoder_blocks."),
        cross_depth=_depth(state, "cross_attn_blocks."),
        aligner_depth=_depth(state, "text_emb.text_aligner."),
        text_width=text_width,
        text_length=text_length,
        head=HeadConfig(depth=_depth(state, "diffloss.net.res_blocks."), width=head_width),
    )


def _matrix(place: str, state: Mapping[str, object], name: str) -> tuple[int, int]:
    rows, columns = _shape(place, state, name, 2)
    return rows, columns


def _shape(place: str, state: Mapping[str, object], name: str, dims: int) -> torch.Size:
    tensor = state.get(name)
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{place} is no published LightGen checkpoint: {name} is missing")
    if tensor.ndim != dims or not tensor.numel():
        raise ValueError(f"{place}: {name} has the shape {tuple(tensor.shape)}, not {dims} sizes")
    return tensor.shape


def _depth(state: Mapping[str, object], prefix: str) -> int:
    """Blocks under a prefix; a gap in their numbers shows later as missing and unknown names."""
    numbers = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    return len(numbers)
