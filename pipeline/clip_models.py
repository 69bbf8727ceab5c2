"""CLIP through open_clip: pictures and texts as unit vectors. Needs the extra `clip`.

In:    a folder or hub repository in open_clip's layout (open_clip_config.json and
       open_clip_model.safetensors), RGB pictures, texts.
Out:   float32 embeddings (N, D) of length 1.
Rerun: the same weights give the same vectors, to the last bits of another batch.

The layout says whether the weights want QuickGELU, which OpenAI's do and a bare weights file
cannot tell.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipeline.geneval.weights import folder_of, identity

NEEDS = "needs open_clip; pip install -e '.[clip]'"
_DECLARED: list[Any] = []  # dropping a library would undo its declarations


class Clip:
    def __init__(
        self,
        repository: str,
        revision: str | None = None,
        *,
        device: str = "cpu",
        batch_size: int = 64,
        place: str = "clip",
    ) -> None:
        if find_spec("open_clip") is None:
            raise ValueError(f"{place}: {NEEDS}")
        folder = folder_of(place, repository, revision)
        if not (folder / "open_clip_config.json").is_file():
            raise ValueError(
                f"{place}: {folder} holds no open_clip_config.json; a CLIP in open_clip's layout "
                "is wanted, such as timm/vit_large_patch14_clip_224.openai"
            )
        declare_operators()
        import open_clip

        self.name = identity(folder, repository)
        self.device, self.batch_size = device, batch_size
        source = f"local-dir:{folder}"
        self.model, self.transform = open_clip.create_model_from_pretrained(
            source, device=device, precision="fp32"
        )
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(source)

    @torch.inference_mode()
    def pictures(self, images: Sequence[Image.Image]) -> Tensor:
        parts = []
        for first in range(0, len(images), self.batch_size):
            part = images[first : first + self.batch_size]
            pixels = torch.stack([self.transform(image) for image in part]).to(self.device)
            parts.append(F.normalize(self.model.encode_image(pixels).float(), dim=-1))
        return torch.cat(parts)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        parts = []
        for first in range(0, len(texts), self.batch_size):
            tokens = self.tokenizer(list(texts[first : first + self.batch_size])).to(self.device)
            parts.append(F.normalize(self.model.encode_text(tokens).float(), dim=-1))
        return torch.cat(parts)


def declare_operators() -> None:
    """Lets a torchvision built for CUDA import beside a CPU torch, by declaring two operators.

    Nothing here calls them; without the declaration the import of torchvision fails.
    """
    if torch.version.cuda is not None or hasattr(torch.ops.torchvision, "nms"):
        return
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)
