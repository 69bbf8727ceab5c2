"""The optimizers of the training loop, and a step that a bad gradient cannot spoil.

In:    a model, an `OptimizerConfig`, the step's number.
Out:   AdamW, or Muon (arXiv 2502.16982) for the matrices inside blocks with AdamW for the rest.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import OptimizerConfig

MUON_MOMENTUM = 0.95


def build_optimizers(model: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """One optimizer, or two that share the parameters out; each is told its rate every step."""
    matrices: list[tuple[str, nn.Parameter]] = []
    rest: list[tuple[str, nn.Parameter]] = []
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim == 2 and "blocks." in name
        (matrices if config.kind == "muon" and hidden else rest).append((name, parameter))
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            decay_groups(rest, config.weight_decay),
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        )
    ]
    if config.kind == "muon":
        if not matrices:
            raise ValueError("optimizer.kind: muon is for matrices in blocks, and there are none")
        optimizers.append(
            torch.optim.Muon(
                decay_groups(matrices, config.weight_decay),
                lr=config.learning_rate,
                momentum=MUON_MOMENTUM,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def decay_groups(
    parameters: Sequence[tuple[str, nn.Parameter]], weight_decay: float
) -> list[dict[str, Any]]:
    """No decay for vectors, biases and the head (lightgen.md 2.2)."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in parameters:
        free = parameter.ndim < 2 or name.endswith(".bias") or name.startswith("head.")
        (plain if free else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Linear warm-up, then constant or cosine to zero. A pure function of the step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.decay == "constant":
        return config.learning_rate
    share = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def take_step(optimizers: Sequence[torch.optim.Optimizer], bad: Tensor, rate: float) -> None:
    """Move the weights unless `bad` (), float, is 1: then nothing changes, no moment either.

    The fused AdamW reads the flag on the device. Muon cannot, so it alone waits for it.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        if isinstance(optimizer, torch.optim.AdamW):
            optimizer.found_inf = bad  # type: ignore[attr-defined]
            optimizer.step()
        elif not bool(bad):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
