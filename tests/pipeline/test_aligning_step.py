"""One step of DPO: ln 2 at the first, shared draws, measured errors, and what is refused."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator

from lightgen_model.config import debug
from lightgen_model.dpo import noise_weights
from lightgen_model.model import LightGen
from pipeline.aligning_step import DpoStep, LiveReference, MeasuredReference, beta_at
from pipeline.batches import Rows, TableRows
from pipeline.config import DpoConfig, MaskingConfig, OptimizerConfig
from pipeline.pairs import Pairs
from pipeline.preferences import PREFERENCES
from pipeline.reference_errors import ErrorTable
from pipeline.training import Part
from tests.pipeline.test_batches import text_of

CPU = torch.device("cpu")
CONFIG = DpoConfig(beta=1000, steps=2, batch_size=4, optimizer=OptimizerConfig(learning_rate=1e-3))
LATENTS = (16, 8, 8)


def pair_table(keep: bool = True) -> pa.Table:
    """Six pairs, the last of them rejected."""
    draws = torch.randn(2, 6, *LATENTS, generator=torch.Generator().manual_seed(0)).half().numpy()
    rows = [
        {
            **dict.fromkeys(PREFERENCES.schema.names, ""),
            "pair_id": f"pair {n}",
            "caption_id": "ab"[n % 2],
            "caption": ("a red circle", "two squares")[n % 4 == 1],
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


def step_of(reference: LightGen, **values: object) -> DpoStep:
    config = DpoConfig.model_validate({**CONFIG.model_dump(), **values})
    live = LiveReference(reference, config.weighting)
    return DpoStep(config, MaskingConfig(), reference.config, pairs(), live)


def pairs(table: pa.Table | None = None, balance: str = "none") -> Pairs:
    text = text_of({"a": 3, "b": 7}, width=128)
    rows = TableRows(pair_table() if table is None else table)
    return Pairs.load(rows, text, shape=LATENTS, balance=balance)


def test_parts_of_a_batch_are_the_batch() -> None:
    step, policy = step_of(network()), network(seed=1)
    whole, extras = step(policy, 1, Part())
    parts = [step(policy, 1, Part(number, 2)) for number in range(2)]
    assert sum(loss.item() for loss, _ in parts) / 2 == pytest.approx(whole.item(), rel=1e-4)
    drift = sum(float(extra["winner_drift"]) for _, extra in parts) / 2
    assert drift == pytest.approx(extras["winner_drift"].item(), rel=1e-4)


@pytest.mark.parametrize("noises", [1, 2])
@pytest.mark.parametrize("draws", [0, 2])
def test_equal_networks_have_a_loss_of_ln_2_and_no_drift(noises: int, draws: int) -> None:
    step = step_of(network(noises=noises), draws_per_pair=draws)
    loss, extras = step(network(noises=noises), 0, Part())
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert extras["winner_drift"].item() == extras["loser_drift"].item() == extras["kl"].item() == 0
    assert extras["winner_error"].item() > 0


def test_a_policy_that_starts_elsewhere_is_refused_at_the_first_step_only() -> None:
    step = step_of(network())
    with pytest.raises(ValueError, match=r"the first DPO loss is .* not ln 2"):
        step(network(seed=1), 0, Part())
    loss, _ = step(network(seed=1), 1, Part())
    assert math.isfinite(loss.item())
    step.starts_equal = False  # a later round against the first student
    assert math.isfinite(step(network(seed=1), 0, Part())[0].item())


@pytest.mark.parametrize("draws", [0, 2])
def test_the_same_step_is_the_same_loss_and_another_is_not(draws: int) -> None:
    step, policy = step_of(network(), draws_per_pair=draws), network(seed=1)
    losses = [step(policy, number, Part())[0].item() for number in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("draws", [0, 2])
def test_winners_alone_have_the_error_that_they_have_beside_losers(draws: int) -> None:
    reference, policy = network(), network(seed=1)
    alone, told = step_of(reference, loss="sft", draws_per_pair=draws)(policy, 1, Part())
    _, beside = step_of(reference, draws_per_pair=draws)(policy, 1, Part())
    assert alone.item() == pytest.approx(beside["winner_error"].item(), rel=1e-5)
    assert told["winner_drift"].item() == pytest.approx(beside["winner_drift"].item(), rel=1e-4)
    assert "loser_drift" not in told


def test_only_the_policy_learns() -> None:
    reference, policy = network().requires_grad_(False), network()
    step_of(reference)(policy, 0, Part())[0].backward()
    grads = [p.grad for p in policy.parameters() if p.grad is not None]
    assert any(grad.abs().max() > 0 for grad in grads)
    assert len(grads) == len(list(policy.parameters()))  # several processes wait for every one
    assert all(parameter.grad is None for parameter in reference.parameters())


@pytest.mark.parametrize("weighting", ["as_trained", "noise"])
def test_measured_errors_give_the_loss_and_gradient_of_two_networks(
    tmp_path: Path, weighting: str
) -> None:
    reference, policies = network(), [network(seed=1), network(seed=1)]
    two = step_of(reference, draws_per_pair=3, weighting=weighting)

    def measure(rows: Rows, number: int) -> tuple[list[float], list[float]]:
        with torch.no_grad():
            winner, loser = two.reference(two.of_pairs(rows, number, CPU)).chunk(2)
        return winner.tolist(), loser.tolist()

    table = ErrorTable.of(str(tmp_path), "values", "inputs", two.pairs.pair_ids, 3, 2)
    errors = table.measured(measure, Accelerator(cpu=True))
    assert errors.shape == (5, 3, 2)
    one = replace(two, reference=MeasuredReference(errors))
    for number in range(1, 5):
        losses = [s(p, number, Part())[0] for s, p in zip((two, one), policies, strict=True)]
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-4)
        for loss in losses:
            torch.autograd.backward(loss)
    for mine, theirs in zip(*(policy.parameters() for policy in policies), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4)

    def never(rows: Rows, number: int) -> tuple[list[float], list[float]]:
        raise AssertionError("measured a second time")

    assert np.array_equal(table.measured(never, Accelerator(cpu=True)), errors)


def test_a_pairs_draws_are_its_own_whatever_stands_beside_it() -> None:
    step = step_of(network(), draws_per_pair=2)
    together = errors(step, [0, 1, 2], 1)
    alone = [errors(step, [row], 1) for row in (0, 1, 2)]
    assert torch.allclose(together[:, :3], torch.cat(alone, 1), rtol=1e-4)
    assert not torch.allclose(errors(step, [0], 0), alone[0])


def errors(step: DpoStep, rows: list[int], number: int) -> torch.Tensor:
    with torch.no_grad():
        found = step.reference(step.of_pairs(np.array(rows), number, CPU))
    return found.view(2, len(rows))


def test_errors_of_the_noise_are_those_of_the_velocity_less_what_time_leaves() -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise, velocity = (torch.randn(64, 8, generator=generator) for _ in range(3))
    t = torch.rand(64, 1, generator=generator)
    noisy = (1 - t) * x + t * noise
    said = noisy + (1 - t) * velocity  # the noise that this velocity means
    expected = (noise - said).square().mean(1)
    by_velocity = (noise - x - velocity).square().mean(1) * noise_weights(t[:, 0])
    assert torch.allclose(by_velocity, expected, rtol=1e-4)


def test_noise_weights_reach_the_errors() -> None:
    values = [errors(step_of(network(), weighting=w), [0, 1], 0) for w in ("as_trained", "noise")]
    assert (values[1] < values[0]).all()


def test_beta_moves_by_equal_factors() -> None:
    config = CONFIG.model_copy(update={"beta_end": 10.0, "steps": 3})
    assert [beta_at(config, step) for step in range(3)] == pytest.approx([1000, 100, 10])
    assert beta_at(CONFIG, 1) == 1000
