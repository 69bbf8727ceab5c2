"""Draws: a row's own, whatever process asks, and as the published distribution has them."""

import pytest
import torch

from lightgen_model.config import HeadConfig, ModelConfig, debug
from pipeline import draws
from pipeline.config import MaskingConfig
from pipeline.draws import Draws, draw

PER_SAMPLE = MaskingConfig(distribution="uniform", min_ratio=0.1, per_sample=True)
MODEL = debug().model_copy(update={"text_drop": 0.3})


def drawn(rows: range, masking: MaskingConfig, model: ModelConfig = MODEL, step: int = 5) -> Draws:
    return draw(8, rows, 16, model, masking, 3, step)


@pytest.mark.parametrize("masking", [PER_SAMPLE, MaskingConfig()], ids=["a sample", "a batch"])
@pytest.mark.parametrize(("kind", "noises"), [("ddpm", 1), ("flow", 1), ("flow", 3)])
@pytest.mark.parametrize("block", [3, 4, 128])
def test_parts_make_the_whole_batch(
    masking: MaskingConfig, kind: str, noises: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draws, "BLOCK", block)
    values = {"kind": kind, "batch_multiplier": 6, "stratified": True}
    head = HeadConfig(noises_per_time=noises, **values)  # type: ignore[arg-type]
    model = MODEL.model_copy(update={"head": head})
    whole = drawn(range(8), masking, model)
    parts = [drawn(range(n, n + 2), masking, model) for n in range(0, 8, 2)]
    for name in ("mask", "drop_text", "times", "noise"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(p, name) for p in parts]))
    assert {part.batch_total for part in parts} == {whole.batch_total}
    assert whole.batch_total == len(whole.noise) == int(whole.mask.sum()) * 6
    assert len(whole.times) * noises == len(whole.noise)


def test_rows_and_steps_differ() -> None:
    whole, later = drawn(range(8), PER_SAMPLE), drawn(range(8), PER_SAMPLE, step=6)
    assert len({tuple(row.tolist()) for row in whole.mask}) > 4
    assert len(set(whole.noise[:, 0].tolist())) == len(whole.noise)
    assert not torch.equal(whole.mask, later.mask)


def test_a_ratio_a_batch_masks_as_many_tokens_of_every_sample() -> None:
    assert len(set(drawn(range(8), MaskingConfig()).mask.sum(1).tolist())) == 1
    assert len(set(drawn(range(8), PER_SAMPLE).mask.sum(1).tolist())) > 1
