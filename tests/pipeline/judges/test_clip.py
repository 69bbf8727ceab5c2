"""The CLIP judge through the real open_clip with small random weights; skipped without it."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline import verdicts
from pipeline.config import ClipJudgeConfig
from pipeline.judges import build, identity, missing

needs_open_clip = pytest.mark.skipif(not find_spec("open_clip"), reason="the extra `clip`")
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1,
    },
}  # fmt: skip


@pytest.fixture
def tiny(tmp_path: Path) -> ClipJudgeConfig:
    import open_clip

    (tmp_path / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip")
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "clip.safetensors")
    head = {"layers.10.weight": torch.ones(1, 2), "layers.10.bias": torch.tensor([5.0])}
    head |= {"layers.2.weight": torch.zeros(2, 16), "layers.2.bias": torch.tensor([1.0, 0.5])}
    save_file(head, tmp_path / "head.safetensors")
    weights, aesthetic = str(tmp_path / "clip.safetensors"), str(tmp_path / "head.safetensors")
    return ClipJudgeConfig(kind="clip", model="tiny-clip", weights=weights, aesthetic=aesthetic)


def pictures(number: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)) for _ in range(number)]


@needs_open_clip
def test_scores_follow_picture_and_caption_and_not_the_batch(tiny: ClipJudgeConfig) -> None:
    assert missing(tiny) == []
    judge = build(tiny)
    together = judge.judge(pictures(5), ["a cat", "a dog", "a cat", "x", "y"])
    small = build(tiny.model_copy(update={"batch_size": 2}))
    apart = small.judge(pictures(5), ["a cat", "a dog", "a cat", "x", "y"])
    for one, other in zip(together, apart, strict=True):
        assert one.alignment == pytest.approx(other.alignment, abs=1e-5)
        assert one.quality == pytest.approx(0.65)  # 5 + 1 + 0.5, layer 2 before layer 10
    assert len({round(one.alignment, 6) for one in together if one.alignment}) > 1
    assert len(judge.revision) == 17


@needs_open_clip
def test_a_model_that_open_clip_lacks_is_named(tiny: ClipJudgeConfig) -> None:
    with pytest.raises(ValueError, match="open_clip has no 'ViT-X'"):
        build(tiny.model_copy(update={"model": "ViT-X"}))


@needs_open_clip
def test_it_scores_beside_another_judge(tiny: ClipJudgeConfig, debug_run, walk) -> None:
    config = debug_run({"verdicts.clip": tiny.model_dump()})
    table = verdicts.judged(config, walk(config, "verdicts"))
    assert table["aesthetic"].to_pylist() == pytest.approx([0.65] * len(table))
    assert len(set(table["clip"].to_pylist())) > 5
    assert set(table["alignment"].to_pylist()) != set(table["clip"].to_pylist())


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    pickle = tmp_path / "clip.pt"
    pickle.touch()
    config = ClipJudgeConfig(kind="clip", weights=str(pickle), aesthetic="nowhere.safetensors")
    assert all(
        sentence.startswith("verdicts.clip") for sentence in missing(config, "verdicts.clip")
    )
    told = " ".join(missing(config))
    assert "clip.pt is not there as a .safetensors file" in told
    assert "nowhere.safetensors is not there" in told
    assert identity(config) == identity(config.model_copy(update={"batch_size": 1}))
