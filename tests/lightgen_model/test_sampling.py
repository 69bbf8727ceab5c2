"""The sampler: equal to its plain form, a picture of its own seed alone, and the edges."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lightgen_model.config import SOLVERS, HeadConfig, SamplingConfig, lightgen_published
from lightgen_model.model import LightGen, Text
from lightgen_model.sampling import draw_tokens, plan, sample, seeded_noise
from tests.lightgen_model.conftest import small, student, texts
from tests.lightgen_model.plain_sampling import plain_sample

EVERY_SOLVER = [(kind, solver) for kind, solvers in SOLVERS.items() for solver in solvers]
# Batches differ in the shapes of their matrix products, and so in the last bits of float32. An
# untrained DDPM head magnifies both pictures and differences: the measure is the largest value.
TOLERANCE = 1e-5


def close(one: Tensor, other: Tensor, tolerance: float = TOLERANCE) -> bool:
    assert one.isfinite().all()
    return bool((one - other).abs().max() <= tolerance * other.abs().max())


def few(**values: Any) -> SamplingConfig:
    return SamplingConfig(**{"num_iterations": 6, "head_steps": 5, "guidance": 3.0} | values)


class Recorded:
    """A tape: noise of every place of every iteration, which both samplers read."""

    def __init__(self, batch: int, num_tokens: int, dim: int) -> None:
        self.shape = (8, batch, num_tokens, dim)
        self.step = -1

    def __call__(self, step: int) -> Iterator[Tensor]:
        return iter(torch.randn(self.shape, generator=torch.Generator().manual_seed(step)))

    def of_places(self, index: Tensor) -> Iterator[Tensor]:
        self.step += 1
        wide = index[:, :, None].expand(-1, -1, self.shape[-1])
        return (noise.gather(1, wide).flatten(0, 1) for noise in self(self.step))


@pytest.mark.parametrize("attend_padding", [False, True])
@pytest.mark.parametrize(("kind", "solver"), EVERY_SOLVER)
def test_all_savings_together_change_nothing(kind: str, solver: str, attend_padding: bool) -> None:
    model = student(small(kind, attend_padding=attend_padding))
    states, lengths = texts(3)
    orders = torch.stack([torch.randperm(24) for _ in range(3)])
    values = few(guidance_schedule="linear", last_head_steps=2, solver=solver)
    tape = Recorded(3, 24, 64)
    plain = plain_sample(model, states, lengths, values, orders, tape, (4, 6))
    with torch.inference_mode():
        text = model.align(states, lengths)
        zeros = torch.zeros(3, 24, 64)
        steps = draw_tokens(
            model, text, zeros, orders, [24] * 3, values, tape.of_places, grid=(4, 6)
        )
        assert close(list(steps)[-1][-1], plain)


@pytest.mark.parametrize("attend_padding", [False, True])
@pytest.mark.parametrize("kind", ["ddpm", "flow"])
def test_a_picture_depends_on_its_own_text_and_seed_alone(kind: str, attend_padding: bool) -> None:
    model, (states, lengths) = student(small(kind, attend_padding=attend_padding)), texts(5)
    seeds = [5, 6, 7, 5, 9]
    values = few(guidance_schedule="linear", temperature=0.9)

    def draw(rows: list[int]) -> Tensor:
        own = [seeds[row] for row in rows]
        return sample(model, states[rows], lengths[rows], values, image_size=64, seeds=own)

    together = draw([0, 1, 2, 3, 4])
    for rows in ([1], [3], [4, 1, 0], [2, 0]):
        assert close(draw(rows), together[rows])
    assert not close(together[3], together[0], 1e-2)  # the same seed, another text
    assert len(together.flatten(1).unique(dim=0)) == 5


def test_padding_of_the_text_matters_in_the_published_mode_alone() -> None:
    states, lengths = texts(2)
    longer = torch.cat([states, torch.randn(2, 3, 128)], dim=1)
    for attend_padding in (False, True):
        model = student(small(attend_padding=attend_padding))
        one, other = (
            sample(model, each, lengths, few(), image_size=64, seeds=[0, 1])
            for each in (states, longer)
        )
        assert close(one, other, TOLERANCE if not attend_padding else 1e-3) is not attend_padding


def test_the_seed_decides_and_a_generator_serves_as_one(model: LightGen) -> None:
    states, lengths = texts(1)

    def draw(seed: int | torch.Generator) -> Tensor:
        return sample(model, states, lengths, few(), image_size=64, seeds=[seed])

    assert torch.equal(draw(4), draw(4))
    assert torch.equal(draw(4), draw(torch.Generator().manual_seed(4)))
    assert not close(draw(4), draw(5), 1e-2)


@pytest.mark.parametrize(
    ("image_size", "iterations"),
    [(64, 1), (64, 16), (128, 10), ((48, 80), 15), ((80, 16), 5)],
)
def test_one_student_draws_at_every_size(
    model: LightGen, image_size: int | tuple[int, int], iterations: int
) -> None:
    states, lengths = texts(1)
    values = few(num_iterations=iterations, guidance=1.0)
    latents = sample(model, states, lengths, values, image_size=image_size, seeds=[0])
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    assert latents.shape == (1, 16, height // 8, width // 8)
    assert latents.isfinite().all()


def test_published_sizes_have_the_published_token_counts() -> None:
    config = lightgen_published()
    counts = {256: 256, 512: 1024, 1024: 4096, (256, 512): 512}
    for size, count in counts.items():
        rows, columns = config.grid_of(size)
        assert rows * columns == count
    assert config.grid_of((256, 512)) == (16, 32)


def test_no_iteration_waits_for_the_device() -> None:
    """Meta tensors have no values: asking for one raises."""
    model = LightGen(small("ddpm")).eval().to("meta")
    orders, states = torch.empty(2, 16, dtype=torch.long, device="meta"), torch.empty(2, 3, 32)
    keep = torch.empty(2, 3, dtype=torch.bool, device="meta")
    text, values, counts = Text(states.to("meta"), keep), few(guidance_schedule="linear"), [16, 5]
    generators = [torch.Generator(), torch.Generator()]
    noise = seeded_noise(generators, plan(values, counts), model, values, orders.device)
    tokens = torch.empty(2, 16, 64, device="meta")
    with torch.inference_mode():
        steps = list(draw_tokens(model, text, tokens, orders, counts, values, noise, grid=(4, 4)))
    assert len(steps) == 6
    with pytest.raises(RuntimeError, match="meta"):
        bool(orders.any())


def test_linear_guidance_has_the_published_values() -> None:
    values = SamplingConfig(guidance=4.0, guidance_schedule="linear")
    steps = plan(values, [256])
    chosen = [steps[i].guidance[0] for i in (0, 15, 31, 47, 62, 63)]
    published = [1.0117, 1.2344, 1.8789, 2.8633, 3.9297, 3.9883]
    assert chosen == pytest.approx(published, abs=1e-4)
    constant = plan(SamplingConfig(guidance=4.0), [256])
    assert {each.guidance[0] for each in constant} == {4.0}


def test_head_steps_fall_in_a_line_over_the_iterations() -> None:
    values = SamplingConfig(num_iterations=10, head_steps=50, last_head_steps=5)
    steps = [values.head_steps_at(i) for i in range(10)]
    assert steps == [50, 45, 40, 35, 30, 25, 20, 15, 10, 5]
    assert [each.head_steps for each in plan(values, [16])] == steps
    once = values.model_copy(update={"num_iterations": 1})
    assert once.head_steps_at(0) == 50


def test_each_iteration_is_shown(model: LightGen) -> None:
    states, lengths = texts(2)
    seen: list[tuple[int, int, Tensor]] = []
    out = sample(
        model, states, lengths, few(), image_size=64, seeds=[0, 1],
        on_step=lambda *step: seen.append(step),
    )  # fmt: skip
    assert [step[:2] for step in seen] == [(i, 6) for i in range(6)]
    assert torch.equal(seen[-1][2], out)
    empty = [int((latents[0, 0] == 0).sum()) for _, _, latents in seen]
    assert empty == sorted(empty, reverse=True)
    assert empty[0] > 0 == empty[-1]


def test_a_bfloat16_student_draws(model: LightGen) -> None:
    states, lengths = texts(2)
    half = student(small()).bfloat16()
    latents = sample(half, states, lengths, few(), image_size=64, seeds=[0, 1])
    assert latents.dtype == torch.float32
    full = sample(model, states, lengths, few(), image_size=64, seeds=[0, 1])
    assert close(latents, full, 0.1)


@pytest.mark.parametrize(
    ("values", "kind", "sentence"),
    [
        ({"num_iterations": 17}, "flow", "num_iterations: 17 iterations for 16 tokens; allowed: 1"),
        ({"solver": "ddim"}, "flow", "'ddim' does not fit a flow head; allowed: euler, heun"),
        ({"solver": "heun"}, "ddpm", "'heun' does not fit a ddpm head; allowed: ancestral, ddim"),
        ({"head_steps": 1001}, "ddpm", "head_steps: 1001 head steps; allowed: 1 to 1000"),
    ],
)
def test_values_that_cannot_draw_are_refused(
    values: dict[str, Any], kind: str, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        few(**values).check(HeadConfig(kind=kind), 16)  # type: ignore[arg-type]


def test_a_student_in_training_mode_is_refused() -> None:
    states, lengths = texts(1)
    with pytest.raises(ValueError, match=r"model: in training mode.*call eval"):
        sample(student(small()).train(), states, lengths, few(), image_size=64, seeds=[0])


def test_more_last_steps_than_first_are_refused() -> None:
    with pytest.raises(ValueError, match="last_head_steps: 9; allowed: 1 to head_steps 8"):
        SamplingConfig(head_steps=8, last_head_steps=9)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"seeds": [1]}, "seeds: 1 for 2 captions; one a picture"),
        ({"image_size": (64, 72)}, "image size 72 must be a multiple of the token size 16"),
        ({"known": torch.zeros(2, 16, 8, 8)}, "known and redraw: one without the other"),
        (
            {"known": torch.zeros(2, 16, 8, 4), "redraw": torch.ones(2, 16, dtype=torch.bool)},
            r"known: latents of shape \(2, 16, 8, 4\); allowed: \(2, 16, 8, 8\)",
        ),
        (
            {"known": torch.zeros(2, 16, 8, 8), "redraw": torch.ones(2, 9, dtype=torch.bool)},
            r"redraw: torch.bool of shape \(2, 9\); allowed: torch.bool of \(2, 16\)",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    model: LightGen, wrong: dict[str, Any], sentence: str
) -> None:
    states, lengths = texts(2)
    with pytest.raises(ValueError, match=sentence):
        sample(model, states, lengths, few(), **{"image_size": 64, "seeds": [0, 1]} | wrong)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_head_draws_the_same() -> None:
    model, (states, lengths) = student(small()), texts(2)
    one, other = (
        sample(model, states, lengths, few(), image_size=64, seeds=[0, 1], compile_head=compiled)
        for compiled in (False, True)
    )
    assert close(one, other)
