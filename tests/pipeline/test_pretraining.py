"""One step of pre-training: the same whatever the number of processes."""

import numpy as np
import pytest
import torch

from lightgen_model.config import debug
from lightgen_model.model import LightGen
from pipeline.batches import FeatureBatches, TextStates
from pipeline.config import MaskingConfig, OptimizerConfig, StudentConfig, TrainingPhase
from pipeline.evaluators import Prompt
from pipeline.pretraining import PretrainingStep, first_of_each_task, share
from tests.pipeline.test_batches import text_table

CONFIG = StudentConfig(
    model=debug(),
    masking=MaskingConfig(distribution="uniform", min_ratio=0.0, per_sample=True),
    phases=(
        TrainingPhase(
            image_size=64, steps=1, batch_size=8, optimizer=OptimizerConfig(learning_rate=1e-3)
        ),
    ),
)


def batches() -> FeatureBatches:
    generator = torch.Generator().manual_seed(0)
    moments = torch.randn(12, 32, 8, 8, generator=generator).half()
    text = TextStates(text_table({"a": 3, "b": 7}, width=128))
    rows = np.array([0, 1] * 6)
    return FeatureBatches(moments, rows, text, scale=1.0, shift=0.0, batch_size=8, seed=1)


def gradient(num_ranks: int) -> tuple[float, torch.Tensor]:
    """Loss and one gradient as data-parallel training would average them."""
    model = LightGen(debug()).init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.head.net.final.linear.weight.fill_(0.01)
    total = 0.0
    for rank in range(num_ranks):
        loss, _ = PretrainingStep(CONFIG, batches(), 3, rank, num_ranks)(model, step=5)
        (loss / num_ranks).backward()
        total += float(loss.detach()) / num_ranks
    grad = model.head.net.final.linear.weight.grad
    assert grad is not None
    return total, grad


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_processes_share_a_batch_without_changing_it(num_ranks: int) -> None:
    (loss, grad), (other_loss, other_grad) = gradient(1), gradient(num_ranks)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(grad, other_grad, atol=1e-5)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 8 does not divide by 3 processes"):
        share(torch.ones(8, 4, dtype=torch.bool), 64, 0, 3)


def test_the_curve_sees_every_task() -> None:
    prompts = [Prompt(n, task, "a circle") for n, task in enumerate("aababbccc")]
    assert [p.index for p in first_of_each_task(prompts, 2)] == [0, 1, 2, 4, 6, 7]
