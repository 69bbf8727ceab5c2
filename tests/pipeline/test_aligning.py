"""One step of DPO: ln 2 at the first, shared draws, and what is refused."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from lightgen_model.config import debug
from lightgen_model.model import LightGen
from pipeline.aligning import DpoStep, Pairs
from pipeline.batches import TableRows
from pipeline.config import DpoConfig, MaskingConfig, OptimizerConfig
from pipeline.preferences import PREFERENCES
from pipeline.training import Part
from tests.pipeline.test_batches import text_of

CONFIG = DpoConfig(beta=1000, steps=2, batch_size=4, optimizer=OptimizerConfig(learning_rate=1e-3))
LATENTS = (16, 8, 8)


def table(keep: bool = True) -> pa.Table:
    """Six pairs, the last of them rejected."""
    draws = torch.randn(2, 6, *LATENTS, generator=torch.Generator().manual_seed(0)).half().numpy()
    rows = [
        {
            **dict.fromkeys(PREFERENCES.schema.names, ""),
            "caption_id": "ab"[n % 2],
            "keep": keep and n < 5,
            "winner": draws[0, n].tobytes(),
            "loser": draws[1, n].tobytes(),
            "winner_image": b"",
            "loser_image": b"",
            "winner_score": 1.0,
            "loser_score": 0.0,
        }
        for n in range(6)
    ]
    return pa.Table.from_pylist(rows, schema=PREFERENCES.schema)


def network(seed: int = 0, noises: int = 1) -> LightGen:
    head = debug().head.model_copy(update={"noises_per_time": noises})
    config = debug().model_copy(update={"head": head})
    model = LightGen(config).init_weights(torch.Generator().manual_seed(seed))
    with torch.no_grad():  # its last layer starts at zero: every network would say the same
        model.head.net.final.linear.weight.normal_(0, 0.1, generator=torch.manual_seed(seed))
    return model.eval()


def step_of(reference: LightGen) -> DpoStep:
    pairs = Pairs.load(TableRows(table()), text_of({"a": 3, "b": 7}, width=128), channels=16)
    return DpoStep(CONFIG, MaskingConfig(), reference, pairs)


def test_only_kept_pairs_are_learned_from() -> None:
    pairs = step_of(network()).pairs
    winners, losers = pairs.take(np.arange(5))
    assert winners.shape == losers.shape == (5, *LATENTS)
    assert pairs.kept.tolist() == [0, 1, 2, 3, 4]
    first = np.frombuffer(table()["loser"][0].as_py(), np.float16)
    assert losers[0].flatten().tolist() == first.tolist()
    with pytest.raises(ValueError, match="no preference pairs to learn from: all 6 rows were"):
        Pairs.load(TableRows(table(keep=False)), pairs.text, channels=16)


def test_parts_of_a_batch_are_the_batch() -> None:
    step, policy = step_of(network()), network(seed=1)
    whole, extras = step(policy, 1, Part())
    parts = [step(policy, 1, Part(number, 2)) for number in range(2)]
    assert sum(loss.item() for loss, _ in parts) / 2 == pytest.approx(whole.item(), rel=1e-4)
    drift = sum(float(extra["winner_drift"]) for _, extra in parts) / 2
    assert drift == pytest.approx(extras["winner_drift"].item(), rel=1e-4)


@pytest.mark.parametrize("noises", [1, 2])
def test_equal_networks_have_a_loss_of_ln_2_and_no_drift(noises: int) -> None:
    loss, extras = step_of(network(noises=noises))(network(noises=noises), 0, Part())
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert extras["winner_drift"].item() == extras["loser_drift"].item() == 0.0
    assert set(extras) == {"accuracy", "winner_drift", "loser_drift"}


def test_a_policy_that_starts_elsewhere_is_refused_at_the_first_step_only() -> None:
    step = step_of(network())
    with pytest.raises(ValueError, match=r"the first DPO loss is .* not ln 2"):
        step(network(seed=1), 0, Part())
    loss, _ = step(network(seed=1), 1, Part())
    assert math.isfinite(loss.item())


def test_the_same_step_is_the_same_loss_and_another_is_not() -> None:
    step, policy = step_of(network()), network(seed=1)
    losses = [step(policy, number, Part())[0].item() for number in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_only_the_policy_learns() -> None:
    reference, policy = network().requires_grad_(False), network()
    step_of(reference)(policy, 0, Part())[0].backward()
    grads = [p.grad for p in policy.parameters() if p.grad is not None]
    assert any(grad.abs().max() > 0 for grad in grads)
    assert len(grads) == len(list(policy.parameters()))  # several processes wait for every one
    assert all(parameter.grad is None for parameter in reference.parameters())
