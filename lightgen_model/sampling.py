"""Masked-autoregressive sampling: text in, latents out (arXiv 2406.11838, section 4).

In:    a student, text states with lengths, `SamplingConfig`, one seed a picture; to redraw a part
       of a picture, its latents and the tokens to draw anew.
Out:   normalised latents (B, c, h, w).

A picture is a function of its own (text, seed, known part) and not of its batch, to float
tolerance: order and noise come from a generator of its own. Exact savings of lightgen.md section 0:
encoder and decoder run once for both guidance halves, cross blocks and head only on the tokens
predicted now, and the null text is one key. Text is projected once for all iterations. All counts
are known on the host before the first iteration, so that no iteration waits for the device.

Shapes: B pictures, N tokens, n tokens drawn now by the picture that draws most, D token dims.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from lightgen_model.config import SamplingConfig
from lightgen_model.model import LightGen, Places, Text, put
from lightgen_model.solvers import num_noises
from lightgen_model.unmasking import tokens_left

# Of the tokens `index` (B, n) predicted now: as many noises (B * n, D) as the solver asks for.
NoiseSource = Callable[[Tensor], Iterator[Tensor]]
OnStep = Callable[[int, int, Tensor], None]


@torch.inference_mode()
def sample(
    model: LightGen,
    states: Tensor,
    lengths: Tensor,
    sampling: SamplingConfig,
    *,
    image_size: int | tuple[int, int],
    seeds: Sequence[int | torch.Generator],
    known: Tensor | None = None,
    redraw: Tensor | None = None,
    drop_text: Tensor | None = None,
    on_step: OnStep | None = None,
    compile_head: bool = False,
) -> Tensor:
    """Draw one picture a row of `states` (B, L, E). Returns normalised latents (B, c, h, w).

    `image_size` is a side or (height, width) in pixels. With `known` latents, only the tokens of
    `redraw` (B, N) bool are drawn. Rows of `drop_text` (B,) bool get the null text.
    `on_step(step, num_steps, latents so far)` follows each iteration, counted from 0. Generators
    are on the CPU and are used up. `compile_head` pays where many pictures are drawn: the first
    are slower.
    """
    grid = model.config.grid_of(image_size)
    num_tokens = grid[0] * grid[1]
    sampling.check(model.config.head, num_tokens)
    if len(seeds) != len(states):
        raise ValueError(f"seeds: {len(seeds)} for {len(states)} captions; one a picture")
    if model.training:
        raise ValueError("model: in training mode, where dropout draws; call eval() first")
    device, dtype = states.device, model.encoder_in.weight.dtype
    tokens, chosen = _first(model, grid, len(states), known, redraw)
    generators = [_generator(seed) for seed in seeds]
    orders = draw_orders(generators, chosen)
    counts = chosen.sum(1).tolist()
    if not model.config.attend_padding:
        states = states[:, : max(1, int(lengths.max()))]  # exact: what is cut off is never read
    text = model.align(states.to(dtype), lengths, drop_text)
    noise = seeded_noise(generators, plan(sampling, counts), model, sampling, device)
    tokens, orders = tokens.to(device), orders.to(device)
    for step, num_steps, drawn in draw_tokens(
        model, text, tokens, orders, counts, sampling, noise, grid=grid, compile_head=compile_head
    ):
        tokens = drawn
        if on_step is not None:
            on_step(step, num_steps, model.unpatchify(tokens, grid))
    return model.unpatchify(tokens, grid)


def _first(
    model: LightGen,
    grid: tuple[int, int],
    batch: int,
    known: Tensor | None,
    redraw: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """First tokens (B, N, D) float32, and on the CPU which of them are drawn (B, N)."""
    num_tokens, p = grid[0] * grid[1], model.config.patch_size
    if known is None and redraw is None:
        zeros = torch.zeros(batch, num_tokens, model.config.token_dim)
        return zeros, torch.ones(batch, num_tokens, dtype=torch.bool)
    if known is None or redraw is None:
        raise ValueError("known and redraw: one without the other; give both or none")
    shape = (batch, model.config.latent_channels, grid[0] * p, grid[1] * p)
    if known.shape != shape:
        raise ValueError(f"known: latents of shape {tuple(known.shape)}; allowed: {shape}")
    if redraw.shape != (batch, num_tokens) or redraw.dtype != torch.bool:
        raise ValueError(
            f"redraw: {redraw.dtype} of shape {tuple(redraw.shape)}; "
            f"allowed: torch.bool of {(batch, num_tokens)}"
        )
    return model.patchify(known.float()), redraw.cpu()


def _generator(seed: int | torch.Generator) -> torch.Generator:
    if not isinstance(seed, torch.Generator):
        return torch.Generator().manual_seed(int(seed))
    if seed.device.type != "cpu":
        raise ValueError(f"seeds: a generator on {seed.device}; allowed: on the CPU")
    return seed


def draw_orders(generators: Sequence[torch.Generator], redraw: Tensor) -> Tensor:
    """A permutation of the tokens a picture (B, N): those to draw first, then the known ones."""
    orders = []
    for generator, chosen in zip(generators, redraw, strict=True):
        order = torch.randperm(len(chosen), generator=generator)
        orders.append(torch.cat([order[chosen[order]], order[~chosen[order]]]))
    return torch.stack(orders)


# --- the plan: all counts, before the first iteration -------------------------------------------


@dataclass(frozen=True)
class Iteration:
    """Its numbers; the lists hold one a picture."""

    before: list[int]  # masked tokens
    after: list[int]
    head_steps: int
    guidance: list[float]


def plan(sampling: SamplingConfig, counts: Sequence[int]) -> list[Iteration]:
    """The iterations of pictures that draw `counts` of their tokens.

    Each picture keeps its own cosine schedule; one with fewer tokens than iterations draws one an
    iteration and is done early. Head steps depend on the iteration alone and so are shared.
    """
    left = [tokens_left(n, min(n, sampling.num_iterations)) if n else [] for n in counts]
    length = max(map(len, left))
    left = [
        [count, *each, *[0] * (length - len(each))]
        for count, each in zip(counts, left, strict=True)
    ]
    return [
        Iteration(
            before=[each[i] for each in left],
            after=[each[i + 1] for each in left],
            head_steps=sampling.head_steps_at(i),
            guidance=[sampling.guidance_at(each[i + 1], max(1, each[0])) for each in left],
        )
        for i in range(length)
    ]


def places(orders: Tensor, start: Sequence[int], stop: Sequence[int]) -> Places:
    """The tokens orders[i, start[i] : stop[i]] of each picture i."""
    count = max(last - first for first, last in zip(start, stop, strict=True))
    if len(set(start)) == len(set(stop)) == 1:
        return Places(orders[:, start[0] : stop[0]], None)
    # A rectangle needs rows of one length. A shorter row is filled up with the tokens that follow
    # in its order, from the front where it ends: they differ from its own, so that `put` can
    # scatter all at once and leave these as they were.
    steps = torch.arange(count)
    columns = (torch.tensor(start)[:, None] + steps) % orders.shape[1]  # (B, n)
    real = steps < (torch.tensor(stop) - torch.tensor(start))[:, None]
    return Places(orders.gather(1, columns.to(orders.device)), real.to(orders.device))


def seeded_noise(
    generators: Sequence[torch.Generator],
    iterations: Sequence[Iteration],
    model: LightGen,
    sampling: SamplingConfig,
    device: torch.device,
) -> NoiseSource:
    """Noise from a generator of each picture's own, whatever its batch draws; one call a picture
    and iteration. The source follows the iterations and serves one run."""
    solver, dim = sampling.solver_of(model.config.head), model.config.token_dim
    upcoming = iter(iterations)

    def noise(index: Tensor) -> Iterator[Tensor]:
        now = next(upcoming)
        num = num_noises(solver, now.head_steps)
        # Zero where rows are filled up; pinned, so that the copy does not wait for the backbone.
        drawn = torch.zeros(num, *index.shape, dim, pin_memory=device.type == "cuda")
        for row, generator in enumerate(generators):
            count = now.before[row] - now.after[row]
            drawn[:, row, :count] = torch.randn(num, count, dim, generator=generator)
        return iter(drawn.flatten(1, 2).to(device, non_blocking=True))

    return noise


# --- the loop -----------------------------------------------------------------------------------


def draw_tokens(
    model: LightGen,
    text: Text,
    tokens: Tensor,
    orders: Tensor,
    counts: Sequence[int],
    sampling: SamplingConfig,
    noise: NoiseSource,
    *,
    grid: tuple[int, int],
    compile_head: bool = False,
) -> Iterator[tuple[int, int, Tensor]]:
    """The iterations as (step, number of steps, tokens so far (B, N, D)), a pure function of its
    arguments: `orders` (B, N) hold the `counts` tokens to draw first, of which the front is drawn
    last; `noise` is asked once an iteration."""
    positions = model.positions(grid)
    texts = [model.project(text)]
    if sampling.guidance != 1:
        texts.append(model.project(model.null(1)))
    iterations = plan(sampling, counts)
    for step, now in enumerate(iterations):
        visible = places(orders, now.before, [orders.shape[1]] * len(orders))
        predicted = places(orders, now.after, now.before)
        encoded = model.encode(tokens.to(model.encoder_in.weight.dtype), visible, positions)
        hidden = model.decode(encoded, visible, positions)
        conditions = [model.condition(hidden, t, predicted.index, positions) for t in texts]
        drawn = _draw(model, conditions, noise(predicted.index), now, sampling, compile_head)
        tokens = put(tokens, predicted, drawn)
        yield step, len(iterations), tokens


def _draw(
    model: LightGen,
    conditions: Sequence[Tensor],
    noise: Iterator[Tensor],
    now: Iteration,
    sampling: SamplingConfig,
    compiled: bool,
) -> Tensor:
    """Tokens (B, n, D) for conditions (B, n, C), with text and, under guidance, without."""
    batch, count = conditions[0].shape[:2]
    rows = [condition.flatten(0, 1) for condition in conditions]  # (B * n, C)
    guidance: float | Tensor = now.guidance[0]
    if len(set(now.guidance)) > 1:
        each = torch.tensor(now.guidance, device=rows[0].device)
        guidance = each.repeat_interleave(count)[:, None]  # (B * n, 1)
    drawn = model.head.sample(
        rows[0],
        rows[1] if len(rows) > 1 else None,
        noise,
        num_steps=now.head_steps,
        guidance=guidance,
        temperature=sampling.temperature,
        solver=sampling.solver_of(model.config.head),
        token_limit=sampling.token_limit,
        compiled=compiled,
    )
    return rearrange(drawn, "(b n) d -> b n d", b=batch)
