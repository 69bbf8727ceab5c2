from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)

from pipeline.config import DiffusersTeacher
from pipeline.teachers import build


def tiny_clip() -> tuple[transformers.CLIPTextModel, transformers.CLIPTokenizer]:
    """An explicit vocabulary: a trained one differs from process to process."""
    base = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    base += [chr(256 + index) for index in range(68)]
    pieces = [*base, *(letter + "</w>" for letter in base), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.CLIPTextModel(config), tokenizer


def tiny_t5() -> tuple[transformers.T5EncoderModel, transformers.T5Tokenizer]:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = transformers.T5Tokenizer(vocab=pieces, extra_ids=4, model_max_length=64)
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return transformers.T5EncoderModel(config), tokenizer


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    text_encoder, tokenizer = tiny_clip()
    text_encoder_2, tokenizer_2 = tiny_t5()
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        latent_channels=16,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1159,
        scaling_factor=0.3611,
    )
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-flux"
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer,
    ).save_pretrained(folder)
    return folder


def config(folder: Path, **values) -> DiffusersTeacher:
    given = {"num_steps": 2, "max_sequence_length": 32, "batch_size": 2, "dtype": "float32"}
    return DiffusersTeacher(
        kind="diffusers", repository=str(folder), licence="MIT", **{**given, **values}
    )


def test_a_picture_follows_its_own_caption_and_seed(flux: Path) -> None:
    teacher = build(config(flux))
    captions, seeds = ["a cat", "a dog", "a cat"], [1, 2, 3]
    pictures = [np.asarray(one.image, int) for one in teacher.draw(captions, seeds, 64)]
    assert [picture.shape for picture in pictures] == [(64, 64, 3)] * 3
    (alone,) = teacher.draw(["a dog"], [2], 64)
    # A batch changes the last bits of the arithmetic, a level of the picture at most.
    assert np.abs(np.asarray(alone.image, int) - pictures[1]).max() <= 1
    assert np.abs(pictures[0] - pictures[2]).max() > 1


def test_its_facts_name_the_folder_but_not_the_machine(flux: Path) -> None:
    facts = build(config(flux)).facts
    assert (facts.name, facts.revision, facts.licence) == ("tiny-flux", "local", "MIT")
    assert (facts.num_steps, facts.guidance) == (2, 0.0)


def test_wrong_values_are_named(flux: Path) -> None:
    with pytest.raises(ValueError, match=r"no pipeline 'FluxPipelin'.*'FluxPipeline'"):
        build(config(flux, pipeline="FluxPipelin"))
    with pytest.raises(ValueError, match="image size 72 must be a multiple of 16"):
        build(config(flux)).draw(["a cat"], [0], 72)
    with pytest.raises(ValueError, match="1 captions with 2 seeds"):
        build(config(flux)).draw(["a cat"], [0, 1], 64)
