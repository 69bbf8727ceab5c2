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

    def pictures(self, images: Sequence[Image.Image]) -> Tensor:
        size = self.batch_size
        parts = (images[first : first + size] for first in range(0, len(images), size))
        return torch.cat([see(self.model, self.transform, p, self.device) for p in parts])

    def texts(self, texts: Sequence[str]) -> Tensor:
        size = self.batch_size
        parts = (texts[first : first + size] for first in range(0, len(texts), size))
        return torch.cat([understand(self.model, self.tokenizer, p, self.device) for p in parts])


@torch.inference_mode()
def see(model: Any, transform: Any, images: Sequence[Image.Image], device: str) -> Tensor:
    """One batch of pictures as unit vectors, (B, D)."""
    pixels = torch.stack([transform(image) for image in images]).to(device)
    return F.normalize(model.encode_image(pixels).float(), dim=-1)


@torch.inference_mode()
def understand(model: Any, tokenizer: Any, texts: Sequence[str], device: str) -> Tensor:
    """One batch of texts as unit vectors, (B, D)."""
    return F.normalize(model.encode_text(tokenizer(list(texts)).to(device)).float(), dim=-1)


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
