"""One step of pre-training: the same whatever the number of processes."""

import pyarrow as pa
import pytest
import torch

from lightgen_model.config import RepaConfig, debug
from lightgen_model.model import LightGen
from pipeline.batches import FeatureBatches, TableRows
from pipeline.config import MaskingConfig, OptimizerConfig, StudentConfig, TrainingPhase
from pipeline.pretraining import PretrainingStep, flops_of
from pipeline.training import Part
from tests.pipeline.test_batches import text_of

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
    moments = torch.randn(12 * 32 * 8 * 8, generator=generator).half().numpy()
    table = pa.table(
        {
            "caption_id": ["a", "b"] * 6,
            "moments": pa.FixedSizeListArray.from_arrays(pa.array(moments), 32 * 8 * 8),
        }
    )
    text = text_of({"zero": 1, "a": 3, "b": 7}, width=128)  # all-zero text would swamp the gradient
    values = {"cells": 8, "scale": 1.0, "shift": 0.0, "batch_size": 8, "seed": 1}
    return FeatureBatches.load(TableRows(table), text, **values)  # type: ignore[arg-type]


def network() -> LightGen:
    model = LightGen(debug()).init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():  # a last layer of zeros would hide everything before it
        model.head.net.final.linear.weight.fill_(0.01)
    return model


def gradient(num_parts: int) -> tuple[float, torch.Tensor]:
    """Loss and one gradient as data-parallel training would average them."""
    model, total = network(), 0.0
    for index in range(num_parts):
        step = PretrainingStep(CONFIG, batches(), 3)
        loss, _ = step(model, 5, Part(index, num_parts))
        (loss / num_parts).backward()
        total += float(loss.detach()) / num_parts
    grad = model.head.net.final.linear.weight.grad
    assert grad is not None
    return total, grad


@pytest.mark.parametrize("num_parts", [2, 4])
def test_parts_share_a_batch_without_changing_it(num_parts: int) -> None:
    (loss, grad), (other_loss, other_grad) = gradient(1), gradient(num_parts)
    assert other_loss == pytest.approx(loss, rel=1e-5)
    assert torch.allclose(grad, other_grad, atol=1e-5)


def test_a_sample_is_more_work_at_a_higher_resolution() -> None:
    small, large = CONFIG.phases[0], CONFIG.phases[0].model_copy(update={"image_size": 128})
    assert 2 < flops_of(CONFIG, large) / flops_of(CONFIG, small) < 8


def test_alignment_adds_its_weight_and_its_tensors_learn() -> None:
    repa = RepaConfig(width=5, block=1, hidden=7, weight=0.5)
    shape = debug().model_copy(update={"repa": repa})
    config = CONFIG.model_copy(update={"model": shape})
    seen = torch.randn(12, 16, 5, generator=torch.Generator().manual_seed(0)).half().numpy()
    table = pa.table({"image_id": list(range(12)), "alignment": [one.tobytes() for one in seen]})
    source = TableRows(batches().source.held.append_column("image_id", table["image_id"]))
    given = {"cells": 8, "scale": 1.0, "shift": 0.0, "batch_size": 8, "seed": 1}
    data = FeatureBatches.load(
        source,
        batches().text,
        alignment=TableRows(table),
        alignment_width=5,
        **given,  # type: ignore[arg-type]
    )
    model = LightGen(shape).init_weights(torch.Generator().manual_seed(0))
    loss, extras = PretrainingStep(config, data, 3)(model, 5, Part())
    expected = extras["mse"] + extras["vb"] + 0.5 * extras["repa"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert model.repa.fc1.weight.grad.abs().max() > 0
    other = TableRows(table.set_column(0, "image_id", [list(range(1, 13))]))
    with pytest.raises(ValueError, match="has other pictures"):
        FeatureBatches.load(source, batches().text, alignment=other, alignment_width=5, **given)  # type: ignore[arg-type]
