"""mmdet's Mask2Former as transformers' own: the detector behind the published scores.

    python -m pipeline.geneval.convert mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_...pth \
        --out folder

In:    a checkpoint of mmdet 2 or 3 (.pth, read without running its pickle, or .safetensors) of a
       Mask2Former with a Swin backbone. Sizes are read from the weights.
Out:   a folder that `Mask2FormerForUniversalSegmentation.from_pretrained` and `--detector` take.
Rerun: writes the same bytes again.

No number changes. Keys are renamed; queries, keys and values that stand in one matrix are taken
apart; and the inputs of Swin's patch merging are put in the order of the original (mmdet merges
with `nn.Unfold`: channel first, then place; the original has place first, down before right).
"""

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.geneval.prompts import CLASSES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Mask2FormerConfig

SWIN, ENCODER = "model.pixel_level_module.encoder.swin", "model.pixel_level_module.encoder"
PIXELS, QUERIES = "model.pixel_level_module.decoder", "model.transformer_module"
# Our names by mmdet's, as patterns; the first that fits the whole name is taken. {n} are numbers.
NAMES = (
    ("backbone.patch_embed.projection.*", f"{SWIN}.embeddings.patch_embeddings.projection.*"),
    ("backbone.patch_embed.norm.*", f"{SWIN}.embeddings.norm.*"),
    (
        "backbone.stages.{0}.blocks.{1}.attn.w_msa.relative_position_bias_table",
        f"{SWIN}.encoder.layers.{{0}}.blocks.{{1}}.attention"
        ".relative_position_bias.relative_position_bias_table",
    ),
    (
        "backbone.stages.{0}.blocks.{1}.attn.w_msa.qkv.*",
        f"{SWIN}.encoder.layers.{{0}}.blocks.{{1}}.attention.[q_proj|k_proj|v_proj].*",
    ),
    (
        "backbone.stages.{0}.blocks.{1}.attn.w_msa.proj.*",
        f"{SWIN}.encoder.layers.{{0}}.blocks.{{1}}.attention.o_proj.*",
    ),
    (
        "backbone.stages.{0}.blocks.{1}.norm1.*",
        f"{SWIN}.encoder.layers.{{0}}.blocks.{{1}}.layernorm_before.*",
    ),
    (
        "backbone.stages.{0}.blocks.{1}.norm2.*",
        f"{SWIN}.encoder.layers.{{0}}.blocks.{{1}}.layernorm_after.*",
    ),
    (
        "backbone.stages.{0}.blocks.{1}.ffn.layers.0.0.*",
        f"{SWIN}.encoder.layers.{{0}}.blocks.{{1}}.mlp.fc1.*",
    ),
    (
        "backbone.stages.{0}.blocks.{1}.ffn.layers.1.*",
        f"{SWIN}.encoder.layers.{{0}}.blocks.{{1}}.mlp.fc2.*",
    ),
    (
        "backbone.stages.{0}.downsample.reduction.*",
        f"{SWIN}.encoder.layers.{{0}}.downsample.reduction.*",
    ),
    ("backbone.stages.{0}.downsample.norm.*", f"{SWIN}.encoder.layers.{{0}}.downsample.norm.*"),
    ("backbone.norm{0}.*", f"{ENCODER}.hidden_states_norms.stage{{0+1}}.*"),
    ("pixel_decoder.input_convs.{0}.conv.*", f"{PIXELS}.input_projections.{{0}}.0.*"),
    ("pixel_decoder.input_convs.{0}.gn.*", f"{PIXELS}.input_projections.{{0}}.1.*"),
    (
        "pixel_decoder.encoder.layers.{0}.attentions.0.*",
        f"{PIXELS}.encoder.layers.{{0}}.self_attn.*",
    ),
    (
        "pixel_decoder.encoder.layers.{0}.norms.0.*",
        f"{PIXELS}.encoder.layers.{{0}}.self_attn_layer_norm.*",
    ),
    (
        "pixel_decoder.encoder.layers.{0}.norms.1.*",
        f"{PIXELS}.encoder.layers.{{0}}.final_layer_norm.*",
    ),
    (
        "pixel_decoder.encoder.layers.{0}.ffns.0.layers.0.0.*",
        f"{PIXELS}.encoder.layers.{{0}}.fc1.*",
    ),
    ("pixel_decoder.encoder.layers.{0}.ffns.0.layers.1.*", f"{PIXELS}.encoder.layers.{{0}}.fc2.*"),
    ("pixel_decoder.level_encoding.weight", f"{PIXELS}.level_embed"),
    ("pixel_decoder.mask_feature.*", f"{PIXELS}.mask_projection.*"),
    ("pixel_decoder.lateral_convs.0.conv.*", f"{PIXELS}.adapter_1.0.*"),
    ("pixel_decoder.lateral_convs.0.gn.*", f"{PIXELS}.adapter_1.1.*"),
    ("pixel_decoder.output_convs.0.conv.*", f"{PIXELS}.layer_1.0.*"),
    ("pixel_decoder.output_convs.0.gn.*", f"{PIXELS}.layer_1.1.*"),
    ("query_embed.*", f"{QUERIES}.queries_embedder.*"),
    ("query_feat.*", f"{QUERIES}.queries_features.*"),
    ("level_embed.*", f"{QUERIES}.level_embed.*"),
    (
        "transformer_decoder.layers.{0}.attentions.0.attn.*",
        f"{QUERIES}.decoder.layers.{{0}}.cross_attn.*",
    ),
    (
        "transformer_decoder.layers.{0}.attentions.1.attn.in_proj_*",
        f"{QUERIES}.decoder.layers.{{0}}.self_attn.[q_proj|k_proj|v_proj].*",
    ),
    (
        "transformer_decoder.layers.{0}.attentions.1.attn.out_proj.*",
        f"{QUERIES}.decoder.layers.{{0}}.self_attn.out_proj.*",
    ),
    (
        "transformer_decoder.layers.{0}.norms.0.*",
        f"{QUERIES}.decoder.layers.{{0}}.cross_attn_layer_norm.*",
    ),
    (
        "transformer_decoder.layers.{0}.norms.1.*",
        f"{QUERIES}.decoder.layers.{{0}}.self_attn_layer_norm.*",
    ),
    (
        "transformer_decoder.layers.{0}.norms.2.*",
        f"{QUERIES}.decoder.layers.{{0}}.final_layer_norm.*",
    ),
    (
        "transformer_decoder.layers.{0}.ffns.0.layers.0.0.*",
        f"{QUERIES}.decoder.layers.{{0}}.fc1.*",
    ),
    ("transformer_decoder.layers.{0}.ffns.0.layers.1.*", f"{QUERIES}.decoder.layers.{{0}}.fc2.*"),
    ("transformer_decoder.post_norm.*", f"{QUERIES}.decoder.layernorm.*"),
    ("mask_embed.{0}.*", f"{QUERIES}.decoder.mask_predictor.mask_embedder.{{0/2}}.0.*"),
    ("cls_embed.*", "class_predictor.*"),
)
# mmdet 3 gave attentions and feed-forward layers of the head names of their own.
OLDER_NAMES = (
    (r"(pixel_decoder\.encoder\.layers\.\d+)\.self_attn\.", r"\1.attentions.0."),
    (r"(transformer_decoder\.layers\.\d+)\.cross_attn\.", r"\1.attentions.0."),
    (r"(transformer_decoder\.layers\.\d+)\.self_attn\.", r"\1.attentions.1."),
    (r"(\.layers\.\d+)\.ffn\.", r"\1.ffns.0."),
)
# Ours that no checkpoint of mmdet has: a norm that is never run, and the loss's class weights.
UNUSED = (f"{SWIN}.layernorm.weight", f"{SWIN}.layernorm.bias", "criterion.empty_weight")
NO_WEIGHTS = ("relative_position_index",)  # theirs that are computed


def converted(theirs: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """The weights under our names; a name that is not understood is a ValueError."""
    ours: dict[str, Tensor] = {}
    unknown = []
    for given, value in theirs.items():
        if given.endswith(NO_WEIGHTS):
            continue
        names = names_of(given)
        if not names:
            unknown.append(given)
            continue
        parts = value.chunk(len(names)) if len(names) > 1 else [value]
        for name, part in zip(names, parts, strict=True):
            ours[name] = (_place_first(part) if ".downsample." in name else part).contiguous()
    if unknown:
        raise ValueError(
            f"{len(unknown)} weights are of no Mask2Former with a Swin backbone, such as "
            f"{', '.join(unknown[:3])}"
        )
    return ours


def names_of(given: str) -> list[str]:
    """Our names for one of theirs: three where queries, keys and values stand together."""
    name = given.removeprefix("panoptic_head.")
    for newer, older in OLDER_NAMES:
        if not name.startswith("backbone."):
            name = re.sub(newer, older, name)
    for pattern, ours in NAMES:
        found = re.fullmatch(_expression(pattern), name)
        if found:
            return list(_filled(ours, found.groupdict()))
    return []


def _expression(pattern: str) -> str:
    expression = re.escape(pattern).replace(r"\*", r"(?P<rest>[\w.]+)")
    return re.sub(r"\\\{(\d)\\\}", r"(?P<n\1>\\d+)", expression)


def _filled(ours: str, found: Mapping[str, str]) -> Iterator[str]:
    """`{0}` is a number, `{0+1}` one more, `{0/2}` half of it, `*` the rest, [] a choice."""
    text = ours.replace("*", found.get("rest", ""))
    for number in range(2):
        value = int(found.get(f"n{number}") or 0)
        text = text.replace(f"{{{number}}}", str(value))
        text = text.replace(f"{{{number}+1}}", str(value + 1))
        text = text.replace(f"{{{number}/2}}", str(value // 2))
    choice = re.search(r"\[(.+)\]", text)
    for one in choice[1].split("|") if choice else [""]:
        yield text.replace(choice[0], one) if choice else text


def _place_first(value: "Tensor") -> "Tensor":
    """Inputs of patch merging (..., 4 C) from (channel, row, column) to (column, row, channel)."""
    from einops import rearrange

    return rearrange(value, "... (c row column) -> ... (column row c)", row=2, column=2)


def config_of(ours: "Mapping[str, Tensor]") -> "Mask2FormerConfig":
    """The sizes that the weights have, in transformers' config."""
    from transformers import Mask2FormerConfig, SwinConfig

    def weight(name: str) -> "Tensor":
        if name not in ours:
            raise ValueError(f"no whole Mask2Former: the weight {name} is missing")
        return ours[name]

    def blocks(stage: int) -> list[str]:
        start = f"{SWIN}.encoder.layers.{stage}.blocks."
        end = ".attention.relative_position_bias.relative_position_bias_table"
        return [name for name in ours if name.startswith(start) and name.endswith(end)]

    def layers(prefix: str) -> int:
        return len({name[len(prefix) :].split(".")[0] for name in ours if name.startswith(prefix)})

    tables = [[ours[name] for name in blocks(stage)] for stage in range(4)]
    if not all(tables):
        raise ValueError("no whole Mask2Former: a stage of its Swin backbone is missing")
    projection = weight(f"{SWIN}.embeddings.patch_embeddings.projection.weight")
    offsets = weight(f"{PIXELS}.encoder.layers.0.self_attn.sampling_offsets.bias")
    levels = weight(f"{PIXELS}.level_embed").shape[0]
    queries = weight(f"{QUERIES}.queries_embedder.weight")
    classes = weight("class_predictor.bias").shape[0] - 1
    return Mask2FormerConfig(
        backbone_config=SwinConfig(
            embed_dim=projection.shape[0],
            patch_size=projection.shape[2],
            depths=[len(stage) for stage in tables],
            num_heads=[stage[0].shape[1] for stage in tables],
            window_size=(int(tables[0][0].shape[0] ** 0.5) + 1) // 2,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        feature_size=weight(f"{PIXELS}.level_embed").shape[1],
        mask_feature_size=weight(f"{PIXELS}.mask_projection.bias").shape[0],
        hidden_dim=queries.shape[1],
        num_queries=queries.shape[0],
        num_attention_heads=offsets.shape[0] // (levels * 4 * 2),  # four points of two numbers
        encoder_feedforward_dim=weight(f"{PIXELS}.encoder.layers.0.fc1.bias").shape[0],
        dim_feedforward=weight(f"{QUERIES}.decoder.layers.0.fc1.bias").shape[0],
        encoder_layers=layers(f"{PIXELS}.encoder.layers."),
        decoder_layers=layers(f"{QUERIES}.decoder.layers.") + 1,  # transformers counts the start
        id2label=dict(enumerate(CLASSES)) if classes == len(CLASSES) else None,
        num_labels=classes,
    )


def convert(path: Path, folder: Path) -> None:
    import torch
    from transformers import Mask2FormerForUniversalSegmentation

    from lightgen_model.weights import refuse_misfits

    ours = converted(read(path))
    with torch.device("meta"):
        expected = Mask2FormerForUniversalSegmentation(config_of(ours)).state_dict()
    wanted = {name: each.shape for name, each in expected.items() if name not in UNUSED}
    refuse_misfits(str(path), wanted, ours)
    model = Mask2FormerForUniversalSegmentation(config_of(ours))
    model.load_state_dict(ours, strict=False)
    model.save_pretrained(folder)


def read(path: Path) -> "dict[str, Tensor]":
    """The weights of a file, and nothing of what else its pickle holds."""
    from torch import Tensor

    from lightgen_model.weights import read_pickle, read_safetensors

    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    found: Any = read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, expected weights by name")
    weights = found.get("state_dict", found)
    return {name: value for name, value in weights.items() if isinstance(value, Tensor)}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.geneval.convert",
        description="Turn mmdet's Mask2Former into a folder that transformers loads.",
    )
    parser.add_argument("path", type=Path, help="a .pth of mmdet, or .safetensors in its naming")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    args = parser.parse_args()
    try:
        convert(args.path, args.out)
    except ValueError as error:
        sys.exit(f"pipeline.geneval.convert: {error}")
    print(args.out)


if __name__ == "__main__":
    main()
