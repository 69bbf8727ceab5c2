"""Callbacks beside a drawing; `test_pipeline.py` has them in one."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightgen_model.callbacks import Interrupted, step_end


def test_only_the_tensors_asked_for_are_given() -> None:
    seen: list[Any] = []
    pipe = SimpleNamespace(interrupt=False)
    for wanted in (["latents"], []):
        step_end(pipe, lambda *call: seen.append(call), wanted)(0, 3, torch.zeros(1))
    assert [(call[0] is pipe, call[1:3], list(call[3])) for call in seen] == [
        (True, (0, 2), ["latents"]),
        (True, (0, 2), []),
    ]


def test_an_interrupt_carries_the_latents() -> None:
    latents = torch.ones(1)
    with pytest.raises(Interrupted) as caught:
        step_end(SimpleNamespace(interrupt=True), None, ["latents"])(0, 3, latents)
    assert caught.value.latents is latents
