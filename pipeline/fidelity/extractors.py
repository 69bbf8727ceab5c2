"""What turns pictures into features: torch-fidelity's Inception-v3 for FID, a CLIP for CMMD.

In:    RGB pictures, in batches on the GPU where there is one.
Out:   features (N, D): 2048 of Inception's last pooling, or CLIP's unit vectors.
Rerun: the same weights give the same features, to the last bits of another batch.

Why torch-fidelity: its network and its resize inside are the TensorFlow ones that published FIDs
were measured with, number for number, and its weights come as plain tensors; clean-fid's come as a
program to run, torchmetrics' are torch-fidelity's again. It is the extra `fidelity`.

Resize changes FID more than most models differ, so it is named in every row:
- `tensorflow`: the network resizes to 299 itself, bilinear without antialiasing (COCO-30K FIDs);
- `clean`: PIL's bicubic with antialiasing to 299 first, as clean-fid (arXiv 2104.11222), but
  rounded to 8 bits, which the network wants.
"""

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image

from lightgen_model.weights import read_pickle, read_safetensors
from pipeline.clip_models import Clip, declare_operators
from pipeline.fidelity.distances import Features
from pipeline.geneval.weights import DIGITS
from pipeline.tables import digest

INCEPTION_PIXELS = 299
LAYER = "2048"
Resize = Literal["tensorflow", "clean"]


class Extractor(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def resize(self) -> str:
        """How a picture comes to the size that the network sees."""
        ...

    def features(self, images: Sequence[Image.Image]) -> Features: ...


class Inception:
    def __init__(
        self, weights: Path, *, resize: Resize = "tensorflow", device: str = "cpu", batch: int = 32
    ) -> None:
        if find_spec("torch_fidelity") is None:
            raise ValueError("--inception: needs torch-fidelity; pip install -e '.[fidelity]'")
        declare_operators()
        from torch_fidelity import FeatureExtractorInceptionV3

        state = read_weights(weights)
        # The library unpickles what it is given: it is given what was just read as tensors.
        plain = io.BytesIO()
        torch.save(state, plain)
        plain.seek(0)
        network = FeatureExtractorInceptionV3("inception", [LAYER], plain)
        self.network, self.device, self.batch = network.to(device), device, batch
        self.way = resize
        shown = [[name, tensor.double().sum().item()] for name, tensor in sorted(state.items())]
        self.name = f"inception-v3-tensorflow@{digest(shown)[:DIGITS]}"

    @property
    def resize(self) -> str:
        if self.way == "clean":
            return f"bicubic, antialiased, to {INCEPTION_PIXELS} (PIL), 8 bits"
        return f"bilinear as TensorFlow 1, to {INCEPTION_PIXELS} (torch-fidelity)"

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> Features:
        """Pictures of one size share a batch with their neighbours only."""
        rows: list[NDArray[np.float32]] = []
        pixels = [clean(image) if self.way == "clean" else np.array(image) for image in images]
        first = 0
        while first < len(pixels):
            last = first + 1
            while (
                last < len(pixels)
                and last - first < self.batch
                and pixels[last].shape == pixels[first].shape
            ):
                last += 1
            stacked = torch.from_numpy(np.stack(pixels[first:last])).to(self.device)
            (seen,) = self.network(rearrange(stacked, "b h w c -> b c h w"))
            rows.append(seen.cpu().numpy())
            first = last
        return np.concatenate(rows)


class ClipVectors:
    def __init__(self, clip: Clip) -> None:
        self.clip, self.name = clip, clip.name
        self.resize = "that of the CLIP's own config (open_clip)"

    def features(self, images: Sequence[Image.Image]) -> Features:
        vectors: NDArray[np.float32] = self.clip.pictures(images).cpu().numpy()
        return vectors


def clean(image: Image.Image) -> NDArray[np.uint8]:
    """(299, 299, 3), each channel resized as floats by PIL's bicubic."""
    size = (INCEPTION_PIXELS, INCEPTION_PIXELS)
    channels = [
        np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC))
        for channel in np.moveaxis(np.asarray(image, np.float32), 2, 0)
    ]
    return np.stack(channels, axis=2).clip(0, 255).round().astype(np.uint8)


def read_weights(path: Path) -> "dict[str, torch.Tensor]":
    """Tensors of a .safetensors or .pth file; nothing else that a pickle holds is run."""
    if not path.is_file():
        raise ValueError(
            f"--inception: {path} is not there; torch-fidelity's weights are "
            "weights-inception-2015-12-05-6726825d.pth of its releases"
        )
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    found = read_pickle(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, expected weights by name")
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}
