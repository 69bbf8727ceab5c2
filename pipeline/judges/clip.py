"""CLIP as judge through open_clip: how near picture and caption lie, and how pleasing it looks.

In:    pictures and captions, in batches on the GPU where there is one. Needs the extra `clip`.
Out:   alignment is CLIPScore (arXiv 2104.08718), 2.5 times the cosine, within 0 and 1; quality is
       an aesthetic head's score of the picture's embedding, a tenth of its 1 to 10, or 1 without
       a head.
Rerun: the same weights give the same scores, to the last bits of another batch.

A CLIP sees few counts and positions: it is cheap, and no judge of composition.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from pipeline.clip_models import declare_operators, see, understand
from pipeline.config import ClipJudgeConfig
from pipeline.judges import Verdict
from pipeline.seals import sha256_of

SCALE = 2.5  # CLIPScore's w


class ClipJudge:
    in_flight = 1

    def __init__(self, config: ClipJudgeConfig) -> None:
        declare_operators()
        import open_clip

        if config.model not in open_clip.list_models():
            raise ValueError(
                f"verdicts.judge.model: open_clip has no {config.model!r}; "
                f"it has {open_clip.list_models()}"
            )
        self.config, self.name = config, config.model
        files = [Path(file) for file in (config.weights, config.aesthetic) if file]
        self.revision = "-".join(sha256_of(file)[:8] for file in files)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self.transform = open_clip.create_model_from_pretrained(
            config.model, pretrained=config.weights, device=self.device, weights_only=True
        )
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(config.model)
        self.head = aesthetic_head(Path(config.aesthetic)) if config.aesthetic else []

    def judge(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[Verdict]:
        if len(images) != len(captions):
            raise ValueError(f"{len(images)} pictures with {len(captions)} captions")
        verdicts: list[Verdict] = []
        for first in range(0, len(images), self.config.batch_size):
            stop = first + self.config.batch_size
            verdicts += self._batch(images[first:stop], captions[first:stop])
        return verdicts

    @torch.inference_mode()
    def _batch(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[Verdict]:
        seen = see(self.model, self.transform, images, self.device)  # (B, D)
        read = understand(self.model, self.tokenizer, captions, self.device)
        cosines = (seen * read).sum(-1).tolist()
        pleasing = self._pleasing(seen)
        return [verdict(cosine, score) for cosine, score in zip(cosines, pleasing, strict=True)]

    def _pleasing(self, embedded: Tensor) -> list[float | None]:
        if not self.head:
            return [None] * len(embedded)
        for weight, bias in self.head:
            embedded = F.linear(embedded, weight.to(self.device), bias.to(self.device))
        scores: list[float | None] = embedded[:, 0].tolist()
        return scores


def verdict(cosine: float, pleasing: float | None) -> Verdict:
    alignment = min(1.0, max(0.0, SCALE * cosine))
    quality = 1.0 if pleasing is None else min(1.0, max(0.0, pleasing / 10))
    aesthetic = "" if pleasing is None else f", aesthetic {pleasing:.2f}"
    return Verdict(alignment, quality, f"cosine {cosine:.3f}{aesthetic}", "")


def aesthetic_head(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Linear layers in order: the published heads have nothing but dropout between them."""
    tensors = load_file(path)
    names = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    if not names:
        raise ValueError(f"verdicts.judge.aesthetic: {path} holds no linear layers")
    ordered = sorted(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    return [
        (tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float()) for name in ordered
    ]
