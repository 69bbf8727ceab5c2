"""Any text-to-image pipeline of diffusers as a teacher, by class name and repository.

In:    captions, one seed each, a picture size.
Out:   one picture a caption, or why there is none. A caption's text is encoded once, however many
       seeds it has; when memory runs out the batch is halved and the work goes on.
Rerun: each picture has its own generator, so it follows its caption and seed; another batch
       composition may change its last bits.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipeline.config import DiffusersTeacher
from pipeline.halving import BatchSize
from pipeline.teachers import Drawing, TeacherFacts
from pipeline.teachers.flaws import UNSAFE, flaw
from pipeline.teachers.pipelines import CONDITIONS, load
from pipeline.teachers.safety import SafetyCheck

# One caption's: a tensor of one row, or a list of one tensor where lengths may differ.
Condition = dict[str, Tensor | list[Tensor]]


class Order(NamedTuple):
    caption: str
    seed: int


class DiffusersDrawer:
    def __init__(self, config: DiffusersTeacher) -> None:
        self.config = config
        self.pipe = load(config)
        self.safety = SafetyCheck(config.safety) if config.safety else None
        self.batch_size = _size(config, "batch_size", config.batch_size)
        self.text_batch_size = _size(config, "text_batch_size", config.text_batch_size)
        self.conditions: dict[str, Condition] = {}  # of the captions drawn last
        local = Path(config.repository).is_dir()
        self.facts = TeacherFacts(
            name=Path(config.repository).name if local else config.repository,
            revision=config.revision or "local",
            licence=config.licence,
            num_steps=config.num_steps,
            guidance=config.guidance,
            pipeline=config.pipeline,
            precision=_precision(config),
        )

    def draw(self, captions: Sequence[str], seeds: Sequence[int], image_size: int) -> list[Drawing]:
        if len(captions) != len(seeds):
            raise ValueError(f"{len(captions)} captions with {len(seeds)} seeds")
        self._check_size(image_size)
        self._encode(captions)
        orders = [Order(*order) for order in zip(captions, seeds, strict=True)]
        batches = self.batch_size.through(orders, lambda batch: self._draw_batch(batch, image_size))
        return [drawing for batch in batches for drawing in batch]

    def _check_size(self, image_size: int) -> None:
        patch = 1 if self.config.pipeline.startswith("Sana") else 2  # latents a token's side
        multiple = patch * int(getattr(self.pipe, "vae_scale_factor", 8))
        if image_size % multiple:
            raise ValueError(
                f"image size {image_size} must be a multiple of {multiple} for "
                f"{self.config.pipeline}"
            )

    # --- text -----------------------------------------------------------------------------------

    def _encode(self, captions: Sequence[str]) -> None:
        """The conditions of these captions, of which those known from before are kept."""
        if self.config.pipeline not in CONDITIONS or "negative_prompt" in self.config.arguments:
            return  # each call encodes its own text
        unique = list(dict.fromkeys(captions))
        known = {caption: self.conditions.get(caption) for caption in unique}
        new = [caption for caption, condition in known.items() if condition is None]
        encoded = self.text_batch_size.through(new, self._encode_batch)
        found = [condition for batch in encoded for condition in batch]
        self.conditions = {
            **{caption: condition for caption, condition in known.items() if condition is not None},
            **dict(zip(new, found, strict=True)),
        }

    @torch.inference_mode()
    def _encode_batch(self, captions: Sequence[str]) -> list[Condition]:
        takes = inspect.signature(self.pipe.encode_prompt).parameters
        shared = {name: value for name, value in self._arguments().items() if name in takes}
        if "do_classifier_free_guidance" in takes:
            shared["do_classifier_free_guidance"] = self.config.guidance > 1
        device = self.pipe._execution_device
        returned = self.pipe.encode_prompt(prompt=list(captions), device=device, **shared)
        names = CONDITIONS[self.config.pipeline]
        values = dict(zip(names, returned, strict=False))  # what follows is not for the call
        return [
            {name: value[row : row + 1] for name, value in values.items() if _has_rows(value)}
            for row in range(len(captions))
        ]

    def _arguments(self) -> dict[str, Any]:
        """What the call is given beside its captions, with the call's own defaults for text."""
        takes = inspect.signature(self.pipe.__call__).parameters
        text: set[str] = set()
        if hasattr(self.pipe, "encode_prompt"):
            text = set(inspect.signature(self.pipe.encode_prompt).parameters) & set(takes)
        values = {
            name: takes[name].default
            for name in sorted(text - {"prompt", "num_images_per_prompt"})
            if takes[name].default is not inspect.Parameter.empty
            and not name.endswith(("_embeds", "_mask"))
        }
        if "max_sequence_length" in takes:
            values["max_sequence_length"] = self.config.max_sequence_length
        return {**values, **self.config.arguments}

    # --- pictures -------------------------------------------------------------------------------

    @torch.inference_mode()
    def _draw_batch(self, orders: Sequence[Order], image_size: int) -> list[Drawing]:
        number = len(orders)
        if self.config.compile:  # another number of pictures would compile again
            orders = [*orders, *[orders[-1]] * (self.batch_size.value - number)]
        output = self.pipe(
            **self._conditioning([order.caption for order in orders]),
            height=image_size,
            width=image_size,
            num_inference_steps=self.config.num_steps,
            guidance_scale=self.config.guidance,
            # On the CPU, so that the noise is the same on every machine.
            generator=[torch.Generator().manual_seed(order.seed) for order in orders],
        )
        images = output.images[:number]
        flagged = (getattr(output, "nsfw_content_detected", None) or [False] * number)[:number]
        if self.safety:
            found = self.safety.unsafe_among(images)
            flagged = [one or other for one, other in zip(flagged, found, strict=True)]
        drawn = zip(images, flagged, strict=True)
        return [_drawing(image, unsafe) for image, unsafe in drawn]

    def _conditioning(self, captions: Sequence[str]) -> dict[str, Any]:
        arguments = self._arguments()
        if not self.conditions:
            return {**arguments, "prompt": list(captions)}
        given = joined([self.conditions[caption] for caption in captions])
        if "negative_prompt" in arguments:
            arguments["negative_prompt"] = None  # it is in the conditions
        return {**arguments, **given}


def _precision(config: DiffusersTeacher) -> str:
    """Of the weights, as a row says it."""
    if config.quantization is None:
        return config.dtype
    method, weights = config.quantization.method, config.quantization.weights
    return f"{config.dtype} {method}" + (f" {weights}" if method == "torchao" else "")


def _size(config: DiffusersTeacher, name: str, value: int) -> BatchSize:
    refusal = f"images.teacher: {config.pipeline}"
    return BatchSize(value, name, refusal, "choose fewer pixels, quantization or offload")


def _has_rows(value: object) -> bool:
    return isinstance(value, Tensor | list) and len(value) > 0


def joined(conditions: Sequence[Condition]) -> Condition:
    """One batch of conditions; shorter texts are padded with zeros, which their masks hide."""
    batch: Condition = {}
    for name in {name: None for condition in conditions for name in condition}:
        values = [condition.get(name) for condition in conditions]
        if isinstance(values[0], list):
            batch[name] = [tensor for value in values if value is not None for tensor in value]
            continue
        if any(value is None for value in values):  # a mask is left out where it hides nothing
            texts = [condition["prompt_embeds"] for condition in conditions]
            values = [
                torch.ones(text.shape[:2], dtype=torch.long, device=text.device)  # type: ignore[union-attr]
                if value is None
                else value
                for value, text in zip(values, texts, strict=True)
            ]
        batch[name] = _padded(values)  # type: ignore[arg-type]
    return batch


def _padded(values: Sequence[Tensor]) -> Tensor:
    """Rows (1, L, ...) of different lengths as one tensor; pooled rows (1, D) are equally long."""
    longest = max(value.shape[1] for value in values)
    return torch.cat(
        [
            F.pad(value, (0, 0) * (value.ndim - 2) + (0, longest - value.shape[1]))
            for value in values
        ]
    )


def _drawing(image: Image.Image, unsafe: bool) -> Drawing:
    reason = UNSAFE if unsafe else flaw(image)
    return Drawing(None, reason) if reason else Drawing(image)
