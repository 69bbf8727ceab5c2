"""Any text-to-image pipeline of diffusers as a teacher, by class name and repository.

In:    captions, one seed each, a picture size. Weights come from a folder or from the hub's
       cache at the pinned revision; nothing is downloaded here.
Out:   one picture a caption.
Rerun: each picture has its own generator, so it follows its caption and seed; another batch
       composition may change its last bits.
"""

import difflib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch

from pipeline.config import DiffusersTeacher
from pipeline.teachers import Drawing, TeacherFacts


class DiffusersDrawer:
    def __init__(self, config: DiffusersTeacher) -> None:
        self.config = config
        self.pipe = _load(config)
        local = Path(config.repository).is_dir()
        self.facts = TeacherFacts(
            name=Path(config.repository).name if local else config.repository,
            revision=config.revision or "local",
            licence=config.licence,
            num_steps=config.num_steps,
            guidance=config.guidance,
        )

    def draw(self, captions: Sequence[str], seeds: Sequence[int], image_size: int) -> list[Drawing]:
        if len(captions) != len(seeds):
            raise ValueError(f"{len(captions)} captions with {len(seeds)} seeds")
        multiple = 2 * int(getattr(self.pipe, "vae_scale_factor", 8))
        if image_size % multiple:
            raise ValueError(
                f"image size {image_size} must be a multiple of {multiple} for "
                f"{self.config.pipeline}"
            )
        drawings: list[Drawing] = []
        for start in range(0, len(captions), self.config.batch_size):
            stop = start + self.config.batch_size
            drawings += self._batch(captions[start:stop], seeds[start:stop], image_size)
        return drawings

    @torch.inference_mode()
    def _batch(
        self, captions: Sequence[str], seeds: Sequence[int], image_size: int
    ) -> list[Drawing]:
        values: dict[str, Any] = {}
        if "max_sequence_length" in inspect.signature(self.pipe.__call__).parameters:
            values["max_sequence_length"] = self.config.max_sequence_length
        output = self.pipe(
            list(captions),
            height=image_size,
            width=image_size,
            num_inference_steps=self.config.num_steps,
            guidance_scale=self.config.guidance,
            # On the CPU, so that the noise is the same on every machine.
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            **values,
        )
        return [Drawing(image) for image in output.images]


def _load(config: DiffusersTeacher) -> Any:
    known = [name for name in dir(diffusers) if name.endswith("Pipeline")]
    if config.pipeline not in known:
        close = difflib.get_close_matches(config.pipeline, known, n=3)
        raise ValueError(
            f"images.teacher.pipeline: diffusers {diffusers.__version__} has no pipeline "
            f"{config.pipeline!r}; close names: {close}"
        )
    pipe = getattr(diffusers, config.pipeline).from_pretrained(
        config.repository,
        revision=config.revision,
        dtype=getattr(torch, config.dtype),
        use_safetensors=True,
        local_files_only=True,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")
