"""Small models of random weights in the full run's own classes: its whole way, without its weights.

In:    a folder and a seed.
Out:   `flux/` (a FluxPipeline with its AutoencoderKL), `t5/` (a T5 encoder with its tokenizer) and
       `qwen2_vl/` (what vLLM serves as the judge), 5 MB together. What they draw is noise.
Rerun: writes the same folders again:

    python -m pipeline.random_models --out artifacts/models/weights

Vocabularies are explicit: a trained one differs from process to process.
"""

import argparse
import json
import string
from pathlib import Path

import torch
import transformers
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

TEXT_WIDTH = 32
QWEN_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
# Far above the usual 0.02, at which every picture gets the same answer.
QWEN_SPREAD = 0.3
QWEN_MERGES = (("Y", "e"), ("Ye", "s"), ("N", "o"))
# The published model's turns, with pictures before their text.
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def clip_tokenizer() -> transformers.CLIPTokenizer:
    """Bytes as CLIP spells them, inside a word and at its end."""
    base = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    base += [chr(256 + index) for index in range(68)]
    pieces = [*base, *(letter + "</w>" for letter in base), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def clip_config(tokenizer: transformers.CLIPTokenizer) -> transformers.CLIPTextConfig:
    return transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def t5() -> tuple[transformers.T5EncoderModel, transformers.T5Tokenizer]:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(letter, -4.0) for letter in string.ascii_lowercase]
    tokenizer = transformers.T5Tokenizer(vocab=pieces, extra_ids=4, model_max_length=64)
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return transformers.T5EncoderModel(config).eval(), tokenizer


def autoencoder(shift: float = 0.1159, scale: float = 0.3611) -> AutoencoderKL:
    """Flux's shape in small: f8, 16 channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        latent_channels=16,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=shift,
        scaling_factor=scale,
    )


def flux() -> FluxPipeline:
    tokenizer = clip_tokenizer()
    text_encoder_2, tokenizer_2 = t5()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(),
        text_encoder=transformers.CLIPTextModel(clip_config(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=FluxTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=TEXT_WIDTH,
            pooled_projection_dim=TEXT_WIDTH,
            axes_dims_rope=(4, 6, 6),
        ),
    )


# --- the judge ----------------------------------------------------------------------------------


def qwen_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A token a byte, and words for yes and no."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, QWEN_MERGES)]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(QWEN_MERGES)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in QWEN_TOKENS])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=QWEN_TEMPLATE,
        model_max_length=8192,
    )


def qwen2_vl(
    tokenizer: transformers.PreTrainedTokenizerFast,
) -> transformers.Qwen2VLForConditionalGeneration:
    number = {token: tokenizer.convert_tokens_to_ids(token) for token in QWEN_TOKENS}
    config = transformers.Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "initializer_range": QWEN_SPREAD,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [4, 6, 6],
                "rope_theta": 10000.0,
            },
            "bos_token_id": number["<|endoftext|>"],
            "eos_token_id": number["<|im_end|>"],
            "pad_token_id": number["<|endoftext|>"],
            "tie_word_embeddings": False,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 4,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "in_channels": 3,
            "initializer_range": QWEN_SPREAD,
        },
        image_token_id=number["<|image_pad|>"],
        video_token_id=number["<|video_pad|>"],
        vision_start_token_id=number["<|vision_start|>"],
        vision_end_token_id=number["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    return transformers.Qwen2VLForConditionalGeneration(config).to(torch.bfloat16)


def save_qwen2_vl(folder: Path) -> None:
    """The processors as JSON alone: building one needs torchvision, reading its values does not."""
    tokenizer = qwen_tokenizer()
    qwen2_vl(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    picture = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "min_pixels": 56 * 56,
        "max_pixels": 512 * 512,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(picture, indent=1))
    processor = {"processor_class": "Qwen2VLProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=1))


def save(folder: Path, seed: int = 0) -> None:
    """All three, each from the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flux().save_pretrained(folder / "flux")
        model, tokenizer = t5()
        model.save_pretrained(folder / "t5")
        tokenizer.save_pretrained(folder / "t5")
        save_qwen2_vl(folder / "qwen2_vl")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Small models of random weights.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    save(given.out, given.seed)
