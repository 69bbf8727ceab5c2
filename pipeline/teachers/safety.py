"""A classifier that looks at every picture drawn and names the ones that are not safe.

In:    pictures, and the classifier's folder or repository (such as Falconsai/nsfw_image_detection).
Out:   for each picture, whether the unsafe labels have the stated share of the probability.
Rerun: the same picture, the same answer.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from pipeline.config import SafetyConfig


class SafetyCheck:
    def __init__(self, config: SafetyConfig) -> None:
        self.threshold = config.threshold
        place = {"revision": config.revision, "local_files_only": True}
        model = AutoModelForImageClassification.from_pretrained(
            config.repository, use_safetensors=True, dtype=torch.float32, **place
        )
        self.model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        # Not torchvision's: the same answer whatever is installed.
        self.processor = AutoImageProcessor.from_pretrained(
            config.repository, backend="pil", **place
        )
        labels = {name.lower(): number for number, name in model.config.id2label.items()}
        lacking = [label for label in config.labels if label.lower() not in labels]
        if lacking:
            raise ValueError(
                f"images.teacher.safety.labels: {config.repository} has no {lacking}, "
                f"it has {sorted(labels)}"
            )
        self.unsafe = [labels[label.lower()] for label in config.labels]

    @torch.inference_mode()
    def unsafe_among(self, images: Sequence[Image.Image]) -> list[bool]:
        pixels = self.processor(images=list(images), return_tensors="pt").pixel_values
        shares = self.model(pixels.to(self.model.device)).logits.softmax(-1)  # (B, labels)
        unsafe: list[bool] = (shares[:, self.unsafe].sum(-1) >= self.threshold).tolist()
        return unsafe
