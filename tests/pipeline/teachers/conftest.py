"""Small pipelines of random weights in the real classes, built once a session."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from diffusers import (
    AutoencoderDC,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from pipeline import random_models
from pipeline.config import DiffusersTeacher

WIDTH = random_models.TEXT_WIDTH


def sd3() -> DiffusionPipeline:
    tokenizer = random_models.clip_tokenizer()
    config = random_models.clip_config(tokenizer)
    text_encoder_3, tokenizer_3 = random_models.t5()
    return StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=random_models.autoencoder(0.0609, 1.5305),
        text_encoder=transformers.CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        text_encoder_2=transformers.CLIPTextModelWithProjection(config),
        tokenizer_2=tokenizer,
        text_encoder_3=text_encoder_3,
        tokenizer_3=tokenizer_3,
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=2 * WIDTH,
            pos_embed_max_size=16,
        ),
    )


def sana() -> DiffusionPipeline:
    tokenizer = random_models.qwen_tokenizer()
    tokenizer.padding_side = "right"
    text = transformers.Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
    )
    return SanaPipeline(
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        vae=AutoencoderDC(
            in_channels=3,
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock", "EfficientViTBlock"),
            decoder_block_types=("ResBlock", "EfficientViTBlock"),
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
            scaling_factor=0.41407,
        ),
        text_encoder=transformers.Gemma2Model(text),
        tokenizer=tokenizer,
        transformer=SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=WIDTH,
            sample_size=32,
        ),
    )


def z_image() -> DiffusionPipeline:
    tokenizer = random_models.qwen_tokenizer()
    text = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=False, shift=3.0),
        vae=random_models.autoencoder(),
        text_encoder=transformers.Qwen3Model(text),
        tokenizer=tokenizer,
        transformer=ZImageTransformer2DModel(
            all_patch_size=(2,),
            all_f_patch_size=(1,),
            in_channels=16,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            qk_norm=True,
            cap_feat_dim=WIDTH,
            rope_theta=256.0,
            t_scale=1000.0,
            axes_dims=[4, 6, 6],
            axes_lens=[256, 32, 32],
        ),
    )


PIPELINES = {
    "FluxPipeline": random_models.flux,
    "StableDiffusion3Pipeline": sd3,
    "SanaPipeline": sana,
    "ZImagePipeline": z_image,
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DiffusersTeacher]:
    """`tiny("SanaPipeline", guidance=4.5)`: a teacher's values over a folder of that class."""

    @cache
    def folder(name: str) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            place = tmp_path_factory.mktemp("models") / f"tiny-{name}"
            PIPELINES[name]().save_pretrained(place)
        return place

    def build(name: str = "FluxPipeline", **values: object) -> DiffusersTeacher:
        given = {
            "pipeline": name,
            "num_steps": 2,
            "max_sequence_length": 32,
            "batch_size": 2,
            "dtype": "float32",
        }
        if name == "SanaPipeline":
            given["arguments"] = {"use_resolution_binning": False}
        return DiffusersTeacher(
            kind="diffusers",
            repository=str(folder(name)),
            licence="MIT",
            **{**given, **values},
        )

    return build
