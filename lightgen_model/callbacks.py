"""What follows each step of a drawing: the caller's callback, and stopping early.

In:    a callback as diffusers users write it: (pipe, step, steps to come, {"latents"}) -> dict.
Out:   a function as the sampler calls it; `Interrupted` once the callback set `pipe._interrupt`.

Shapes: latents (B, c, h, w), normalised.
"""

from collections.abc import Callable, Sequence
from typing import Any

from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from torch import Tensor

from lightgen_model.sampling import OnStep

StepEnd = Callable[[Any, int, int, dict[str, Any]], dict[str, Any] | None]
TENSOR_INPUTS = ("latents",)


class Interrupted(Exception):  # noqa: N818  a wish, no error
    """The drawing shall end; carries the latents so far."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__("interrupted")
        self.latents = latents


def step_end(pipe: Any, callback: StepEnd | None, wanted: Sequence[str]) -> OnStep:
    """The callback for the sampler; ValueError for a tensor that no step has."""
    if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
        wanted = callback.tensor_inputs
    if strange := sorted(set(wanted) - set(TENSOR_INPUTS)):
        raise ValueError(
            f"callback_on_step_end_tensor_inputs: {', '.join(strange)}; allowed: "
            f"{', '.join(TENSOR_INPUTS)}"
        )

    def after(step: int, num_steps: int, latents: Tensor) -> None:
        if callback is not None:
            given = {"latents": latents} if wanted else {}
            changed = callback(pipe, step, num_steps - 1 - step, given) or {}
            if changed.get("latents", latents) is not latents:
                raise ValueError("the callback replaced the latents; it may only read them")
        if pipe.interrupt:
            raise Interrupted(latents)

    return after
