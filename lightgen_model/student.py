"""The student as a diffusers model, so that a pipeline can save, load and move it.

In:    the values of a `ModelConfig`, and `about`: where the weights came from, by value.
Out:   `LightGenStudent`, a folder of `config.json` and safetensors; calling it draws latents.

Drawing is the module's `forward`: it is where diffusers' hooks bring an offloaded model to the
accelerator.
Shapes: B pictures, L text tokens, E text width, N tokens; latents (B, c, h, w), normalised.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from lightgen_model import checkpoint
from lightgen_model.config import ModelConfig, SamplingConfig
from lightgen_model.model import LightGen
from lightgen_model.sampling import sample


class LightGenStudent(ModelMixin, ConfigMixin):  # type: ignore[misc]
    # Its layers are driven one by one, not by forward, so hooks on single layers would miss them.
    _supports_group_offloading = False

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, model: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.network = LightGen(ModelConfig.model_validate(dict(model)))

    @staticmethod
    def of(network: LightGen, about: Mapping[str, object]) -> "LightGenStudent":
        """Wrap a network that is there already; its weights are shared, not copied."""
        with torch.device("meta"):
            student = LightGenStudent(
                model=network.config.model_dump(mode="json"), about=dict(about)
            )
        student.network = network
        return student.eval().requires_grad_(False)

    @staticmethod
    def from_checkpoint(folder: Path) -> "LightGenStudent":
        """Read a training checkpoint of ours; ValueError for a folder that is none."""
        _, about = checkpoint.read_config(folder)
        return LightGenStudent.of(checkpoint.load(folder), about)

    @property
    def values(self) -> ModelConfig:
        """The student's sizes; `config` is diffusers' dict of the same."""
        return self.network.config

    @property
    def about(self) -> dict[str, str]:
        """Where the weights came from; "" and no value are left out."""
        return {name: str(value) for name, value in (self.config.about or {}).items() if value}

    def forward(
        self, states: Tensor, lengths: Tensor, sampling: SamplingConfig, **rest: Any
    ) -> Tensor:
        """`sample` with this student: (B, L, E) and (B,) to latents; length 0 is the null text."""
        return sample(
            self.network,
            states,
            lengths.clamp(min=1),  # a row without any key has no softmax
            sampling,
            drop_text=lengths == 0,
            **rest,
        )
