"""Students with weights that say something: a fresh head is exactly zero and would hide all."""

import pytest
import torch
from torch import Tensor

from lightgen_model.config import HeadConfig, ModelConfig, debug
from lightgen_model.model import LightGen


def student(config: ModelConfig) -> LightGen:
    model = LightGen(config).init_weights(torch.Generator().manual_seed(0)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def small(kind: str = "flow", *, attend_padding: bool = False) -> ModelConfig:
    head = HeadConfig(kind=kind, depth=2, width=48, batch_multiplier=2)  # type: ignore[arg-type]
    return debug().model_copy(update={"head": head, "attend_padding": attend_padding})


def texts(num: int, length: int = 6) -> tuple[Tensor, Tensor]:
    """T5 states (num, length, 128), zero beyond lengths that differ."""
    states = torch.randn(num, length, 128, generator=torch.Generator().manual_seed(2))
    lengths = torch.arange(num) * 2 % length + 1
    return states * (torch.arange(length) < lengths[:, None])[:, :, None], lengths


@pytest.fixture(scope="session")
def model() -> LightGen:
    return student(small())
