"""mmdet's names and ours: every weight of a Mask2Former has its place, and the place is right."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from pipeline.geneval.convert import UNUSED, convert, converted, names_of
from tests.pipeline.geneval.conftest import mask2former

HEAD = "panoptic_head."


def as_mmdet(
    model: transformers.Mask2FormerForUniversalSegmentation, version: int = 2
) -> dict[str, Tensor]:
    """The weights as mmdet's own modules name and shape them, written down from its sources."""
    ours = model.state_dict()
    found: dict[str, Tensor] = dict(backbone(ours, model.config.backbone_config.depths))
    attention, feed = ("attentions.{}.", "ffns.0.") if version == 2 else ("{}.", "ffn.")
    pixels, queries = "model.pixel_level_module.decoder", "model.transformer_module"
    names = {
        "level_embed.weight": f"{queries}.level_embed.weight",
        "query_embed.weight": f"{queries}.queries_embedder.weight",
        "query_feat.weight": f"{queries}.queries_features.weight",
        "pixel_decoder.level_encoding.weight": f"{pixels}.level_embed",
        "pixel_decoder.lateral_convs.0.conv.weight": f"{pixels}.adapter_1.0.weight",
        "pixel_decoder.output_convs.0.conv.weight": f"{pixels}.layer_1.0.weight",
    }
    for end in ("weight", "bias"):
        names |= {
            f"cls_embed.{end}": f"class_predictor.{end}",
            f"transformer_decoder.post_norm.{end}": f"{queries}.decoder.layernorm.{end}",
            f"pixel_decoder.mask_feature.{end}": f"{pixels}.mask_projection.{end}",
            f"pixel_decoder.lateral_convs.0.gn.{end}": f"{pixels}.adapter_1.1.{end}",
            f"pixel_decoder.output_convs.0.gn.{end}": f"{pixels}.layer_1.1.{end}",
        }
        for n in range(3):
            embedder = f"{queries}.decoder.mask_predictor.mask_embedder.{n}.0.{end}"
            names[f"mask_embed.{2 * n}.{end}"] = embedder
            for part, place in (("conv", 0), ("gn", 1)):
                theirs = f"pixel_decoder.input_convs.{n}.{part}.{end}"
                names[theirs] = f"{pixels}.input_projections.{n}.{place}.{end}"
        for n in range(model.config.encoder_layers):
            layer, own = f"pixel_decoder.encoder.layers.{n}.", f"{pixels}.encoder.layers.{n}."
            at = attention.format(0 if version == 2 else "self_attn")
            for part in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
                names[f"{layer}{at}{part}.{end}"] = f"{own}self_attn.{part}.{end}"
            names |= feed_forward(layer + feed, own, end)
            names[f"{layer}norms.0.{end}"] = f"{own}self_attn_layer_norm.{end}"
            names[f"{layer}norms.1.{end}"] = f"{own}final_layer_norm.{end}"
        for n in range(model.config.decoder_layers - 1):
            layer, own = f"transformer_decoder.layers.{n}.", f"{queries}.decoder.layers.{n}."
            at = attention.format(0 if version == 2 else "cross_attn")
            names[f"{layer}{at}attn.in_proj_{end}"] = f"{own}cross_attn.in_proj_{end}"
            names[f"{layer}{at}attn.out_proj.{end}"] = f"{own}cross_attn.out_proj.{end}"
            at = attention.format(1 if version == 2 else "self_attn")
            parts = [ours[f"{own}self_attn.{part}_proj.{end}"] for part in "qkv"]
            found[f"{HEAD}{layer}{at}attn.in_proj_{end}"] = torch.cat(parts)
            names[f"{layer}{at}attn.out_proj.{end}"] = f"{own}self_attn.out_proj.{end}"
            names |= feed_forward(layer + feed, own, end)
            for m, norm in enumerate(("cross_attn", "self_attn", "final")):
                names[f"{layer}norms.{m}.{end}"] = f"{own}{norm}_layer_norm.{end}"
    return found | {HEAD + theirs: ours[own] for theirs, own in names.items()}


def feed_forward(theirs: str, own: str, end: str) -> dict[str, str]:
    return {
        f"{theirs}layers.0.0.{end}": f"{own}fc1.{end}",
        f"{theirs}layers.1.{end}": f"{own}fc2.{end}",
    }


def backbone(ours: dict[str, Tensor], depths: list[int]) -> Iterator[tuple[str, Tensor]]:
    encoder = "model.pixel_level_module.encoder"
    swin = f"{encoder}.swin"
    for end in ("weight", "bias"):
        embeddings = f"{swin}.embeddings"
        yield (
            f"backbone.patch_embed.projection.{end}",
            ours[f"{embeddings}.patch_embeddings.projection.{end}"],
        )
        yield f"backbone.patch_embed.norm.{end}", ours[f"{embeddings}.norm.{end}"]
    for stage, depth in enumerate(depths):
        for end in ("weight", "bias"):
            norm = ours[f"{encoder}.hidden_states_norms.stage{stage + 1}.{end}"]
            yield f"backbone.norm{stage}.{end}", norm
            if stage < 3:
                own = f"{swin}.encoder.layers.{stage}.downsample"
                yield (
                    f"backbone.stages.{stage}.downsample.norm.{end}",
                    unfolded(ours[f"{own}.norm.{end}"]),
                )
        if stage < 3:
            weight = ours[f"{own}.reduction.weight"]
            yield f"backbone.stages.{stage}.downsample.reduction.weight", unfolded(weight)
        for block in range(depth):
            theirs = f"backbone.stages.{stage}.blocks.{block}."
            own_block = f"{swin}.encoder.layers.{stage}.blocks.{block}."
            yield from block_weights(ours, theirs, own_block)


def block_weights(ours: dict[str, Tensor], theirs: str, own: str) -> Iterator[tuple[str, Tensor]]:
    table = "relative_position_bias_table"
    yield f"{theirs}attn.w_msa.{table}", ours[f"{own}attention.relative_position_bias.{table}"]
    yield f"{theirs}attn.w_msa.relative_position_index", torch.zeros(49, 49)
    for end in ("weight", "bias"):
        parts = [ours[f"{own}attention.{part}_proj.{end}"] for part in "qkv"]
        yield f"{theirs}attn.w_msa.qkv.{end}", torch.cat(parts)
        yield f"{theirs}attn.w_msa.proj.{end}", ours[f"{own}attention.o_proj.{end}"]
        yield f"{theirs}norm1.{end}", ours[f"{own}layernorm_before.{end}"]
        yield f"{theirs}norm2.{end}", ours[f"{own}layernorm_after.{end}"]
        yield f"{theirs}ffn.layers.0.0.{end}", ours[f"{own}mlp.fc1.{end}"]
        yield f"{theirs}ffn.layers.1.{end}", ours[f"{own}mlp.fc2.{end}"]


def unfolded(value: Tensor) -> Tensor:
    """Inputs of a merge in the order in which `nn.Unfold` lays them, found by unfolding numbers."""
    channels = value.shape[-1] // 4
    grid = torch.arange(4 * channels, dtype=torch.float32).reshape(1, 2, 2, channels)
    merged = transformers.models.swin.modeling_swin.SwinPatchMerging(channels)
    seen: list[Tensor] = []
    merged.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten()))
    merged(grid.reshape(1, 4, channels), (2, 2))
    theirs = torch.nn.Unfold(2, stride=2)(grid.permute(0, 3, 1, 2)).flatten()
    place = {number: index for index, number in enumerate(seen[0].tolist())}
    return value[..., [place[number] for number in theirs.tolist()]]


@pytest.fixture(scope="module")
def model() -> transformers.Mask2FormerForUniversalSegmentation:
    model = mask2former()
    with torch.no_grad():  # no norm is left at one: a wrong order would not show
        for value in model.parameters():
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("version", [2, 3])
def test_every_weight_of_mmdet_has_its_place(
    model: transformers.Mask2FormerForUniversalSegmentation, version: int
) -> None:
    theirs = as_mmdet(model, version)
    ours, expected = converted(theirs), model.state_dict()
    assert set(ours) == set(expected) - set(UNUSED)
    for name, value in ours.items():
        assert torch.equal(value, expected[name]), name


def test_the_published_sizes_have_no_name_of_their_own() -> None:
    config = transformers.Mask2FormerConfig(
        backbone_config=transformers.SwinConfig(
            embed_dim=96,
            depths=[2, 2, 18, 2],
            num_heads=[3, 6, 12, 24],
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        num_labels=80,
    )
    with torch.device("meta"):
        model = transformers.Mask2FormerForUniversalSegmentation(config)
    names = {name for given in as_mmdet_names(model) for name in names_of(given)}
    assert names == set(model.state_dict()) - set(UNUSED)


def as_mmdet_names(model: transformers.Mask2FormerForUniversalSegmentation) -> list[str]:
    small = {name: torch.zeros(4) for name in model.state_dict()}
    fake = type("Sized", (), {"state_dict": lambda self: small, "config": model.config})()
    return [name for name in as_mmdet(fake) if not name.endswith("relative_position_index")]


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_checkpoint_becomes_a_folder_that_sees_the_same(
    model: transformers.Mask2FormerForUniversalSegmentation, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"mask2former.{ending}"
    weights = {name: value.contiguous() for name, value in as_mmdet(model).items()}
    if ending == "pth":
        torch.save({"meta": {"epoch": 50}, "state_dict": weights}, path)
    else:
        save_file(weights, path)
    convert(path, tmp_path / "out")
    loaded = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(tmp_path / "out")
    pixels = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        seen, expected = (each.eval()(pixels) for each in (loaded, model))
    torch.testing.assert_close(seen.class_queries_logits, expected.class_queries_logits)
    torch.testing.assert_close(seen.masks_queries_logits, expected.masks_queries_logits)
    assert loaded.config.id2label[63] == "laptop"


def test_another_model_and_a_torn_one_are_named(
    model: transformers.Mask2FormerForUniversalSegmentation, tmp_path: Path
) -> None:
    theirs = as_mmdet(model)
    with pytest.raises(ValueError, match=r"1 weights are of no Mask2Former.*roi_head\.fc\.weight"):
        converted({**theirs, "roi_head.fc.weight": torch.zeros(1)})
    del theirs["panoptic_head.cls_embed.weight"]
    save_file({n: v.contiguous() for n, v in theirs.items()}, tmp_path / "torn.safetensors")
    with pytest.raises(ValueError, match=r"does not fit.*class_predictor\.weight"):
        convert(tmp_path / "torn.safetensors", tmp_path / "out")
    (tmp_path / "evil.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="cannot be read as weights alone"):
        convert(tmp_path / "evil.pth", tmp_path / "out")
