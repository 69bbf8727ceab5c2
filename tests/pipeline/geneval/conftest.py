"""Small models of random weights in the real classes: Mask2Former and open_clip's CLIP."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from pipeline.geneval.prompts import CLASSES

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1,
    },
}  # fmt: skip


def mask2former(**values: object) -> transformers.Mask2FormerForUniversalSegmentation:
    """A sure one: its classes are far apart, so that random pictures show something."""
    backbone = transformers.SwinConfig(
        embed_dim=8,
        depths=[1, 2, 1, 1],
        num_heads=[1, 2, 2, 4],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=48,
        dim_feedforward=40,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=2,
        **{"num_queries": 20, "id2label": dict(enumerate(CLASSES)), **values},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.Mask2FormerForUniversalSegmentation(config).eval()
        for name, value in model.named_parameters():
            if name.startswith("class_predictor"):
                torch.nn.init.normal_(value, std=2.0)
    return model


@pytest.fixture(scope="session")
def detector_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "mask2former-tiny"
    mask2former().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Needs open_clip: a test that asks for it is skipped without."""
    pytest.importorskip("open_clip", reason="the extra `clip`", exc_type=ImportError)
    from pipeline.clip_models import declare_operators

    declare_operators()
    import open_clip

    folder = tmp_path_factory.mktemp("weights") / "clip-tiny"
    folder.mkdir()
    config = {"model_cfg": CLIP, "preprocess_cfg": {"interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(**CLIP)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def noise(width: int = 48, height: int = 40, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
