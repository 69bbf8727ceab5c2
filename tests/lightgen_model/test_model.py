"""The student: the published size, the exact savings, the edges."""

import pytest
import torch
from torch import Tensor

from lightgen_model.config import (
    HeadConfig,
    ModelConfig,
    RepaConfig,
    debug,
    lightgen_base,
    lightgen_published,
    tiny,
)
from lightgen_model.head import draw_times
from lightgen_model.model import LightGen, Split, Text, gather_index


def batch(size: int = 4, length: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(size, 16, 8, 8, generator=generator)
    states = torch.randn(size, length, 128, generator=generator)
    return latents, states, torch.arange(size) % length + 1


def losses(model: LightGen, mask: Tensor) -> Tensor:
    latents, states, lengths = batch(len(mask))
    generator = torch.Generator().manual_seed(3)
    rows = model.num_draws(mask)
    times = draw_times(model.config.head, rows, generator)
    noise = torch.randn(rows, 64, generator=generator)
    return model(latents, states, lengths, mask, times=times, noise=noise).mse


@pytest.mark.parametrize(
    ("config", "parameters", "tensors"),
    [
        (lightgen_published(), 792_244_352, 813),
        (lightgen_base(), 406_689_152, 653),
        (tiny(), 6_388_672, 205),
        (debug(), 151_296, 145),
    ],
)
def test_every_named_config_has_its_size(
    config: ModelConfig, parameters: int, tensors: int
) -> None:
    with torch.device("meta"):
        model = LightGen(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors


def test_patchify_is_channel_major_and_comes_back(model: LightGen) -> None:
    latents = torch.arange(16 * 64.0).view(1, 16, 8, 8)
    tokens = model.patchify(latents)
    assert tokens[0, 1, :5].tolist() == [2.0, 3.0, 10.0, 11.0, 66.0]
    assert torch.equal(model.unpatchify(tokens, (4, 4)), latents)


def test_padded_visible_tokens_change_nothing(model: LightGen) -> None:
    """Samples with different mask counts in one batch get what they would get alone."""
    latents, _, _ = batch(3)
    mask = torch.zeros(3, 16, dtype=torch.bool)
    for row, count in enumerate((3, 9, 16)):
        mask[row, :count] = True
    tokens, positions = model.patchify(latents), model.positions((4, 4))

    def hidden(rows: slice) -> Tensor:
        visible = gather_index(~mask[rows])
        return model.decode(model.encode(tokens[rows], visible, positions), visible, positions)

    together = hidden(slice(None))
    for row in range(3):
        one = slice(row, row + 1)
        assert torch.allclose(together[one], hidden(one), atol=1e-5)


def test_cross_blocks_on_chosen_tokens_equal_those_on_all(model: LightGen) -> None:
    _, states, lengths = batch(2)
    hidden, text = torch.randn(2, 16, 32), model.project(model.align(states, lengths))
    everywhere = torch.arange(16).expand(2, -1)
    some = torch.tensor([[3, 7, 8], [0, 1, 15]])
    positions = model.positions((4, 4))
    full = model.condition(hidden, text, everywhere, positions)
    few = model.condition(hidden, text, some, positions)
    assert torch.allclose(few, full.gather(1, some[:, :, None].expand(-1, -1, 32)), atol=1e-5)


def test_masked_tokens_alone_have_the_losses_they_have_among_all(model: LightGen) -> None:
    (latents, states, lengths), k = batch(3), model.config.head.batch_multiplier
    mask = torch.rand(3, 16, generator=torch.Generator().manual_seed(4)) < 0.6
    times, noise = torch.rand(3 * 16 * k), torch.randn(3 * 16 * k, 64)
    chosen = mask.flatten().repeat_interleave(k)
    few = model(
        latents, states, lengths, mask, times=times[chosen], noise=noise[chosen]
    ).mse  # what `forward` computes
    visible, positions = gather_index(~mask), model.positions((4, 4))
    hidden = model.decode(
        model.encode(model.patchify(latents), visible, positions), visible, positions
    )
    text, everywhere = model.project(model.align(states, lengths)), torch.arange(16).expand(3, -1)
    conditions = model.condition(hidden, text, everywhere, positions)
    rows = [x.flatten(0, 1).repeat_interleave(k, 0) for x in (model.patchify(latents), conditions)]
    assert torch.allclose(few, model.head.losses(*rows, times, noise)[0][chosen], atol=1e-5)


def test_the_null_text_is_one_key(model: LightGen) -> None:
    hidden, index = torch.randn(2, 16, 32), torch.arange(16).expand(2, -1)
    positions = model.positions((4, 4))
    one = model.condition(hidden, model.project(model.null(1)), index, positions)
    many = model.project(Text(model.null_text.expand(2, 128, -1), None))
    assert torch.allclose(one, model.condition(hidden, many, index, positions), atol=1e-5)


def test_dropped_text_equals_the_null_text(model: LightGen) -> None:
    _, states, lengths = batch(2)
    dropped = model.align(states, lengths, torch.tensor([True, False]))
    hidden, index = torch.randn(2, 16, 32), torch.arange(16).expand(2, -1)
    positions = model.positions((4, 4))
    with_drop = model.condition(hidden, model.project(dropped), index, positions)[:1]
    null = model.condition(hidden[:1], model.project(model.null(1)), index[:1], positions)
    assert torch.allclose(with_drop, null, atol=1e-5)


def test_padding_is_masked_in_the_improved_mode_alone(model: LightGen) -> None:
    _, states, lengths = batch(4)
    longer = torch.cat([states, torch.randn(4, 3, 128)], dim=1)
    hidden, index = torch.randn(4, 16, 32), torch.arange(16).expand(4, -1)

    def condition(states: Tensor, of: LightGen) -> Tensor:
        text = of.project(of.align(states, lengths))
        return of.condition(hidden, text, index, of.positions((4, 4)))

    assert torch.allclose(condition(states, model), condition(longer, model), atol=1e-5)
    published = LightGen(model.config.model_copy(update={"attend_padding": True})).eval()
    published.load_state_dict(model.state_dict())
    assert not torch.allclose(condition(states, published), condition(longer, published), atol=1e-3)


@pytest.mark.parametrize("count", [1, 15, 16])
def test_any_number_of_masked_tokens_trains(model: LightGen, count: int) -> None:
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, :count] = True
    out = losses(model, mask)
    assert out.shape == (2 * count * 2,)
    assert out.isfinite().all()


def test_noises_that_share_a_time_have_the_errors_of_their_samples(model: LightGen) -> None:
    """The draws of a token follow each other, those of a time within them."""
    head = model.config.head.model_copy(update={"noises_per_time": 2})
    other = LightGen(model.config.model_copy(update={"head": head})).eval()
    other.load_state_dict(model.state_dict())
    (latents, states, lengths), mask = batch(3), torch.rand(3, 16) < 0.6
    noise = torch.randn(model.num_draws(mask), 64)
    t = draw_times(head, len(noise), torch.Generator().manual_seed(0))
    inputs = (latents, states, lengths, mask)
    one = other(*inputs, times=t, noise=noise)
    two = model(*inputs, times=t.repeat_interleave(2), noise=noise)
    assert torch.equal(one.sample, two.sample)
    assert torch.allclose(one.per_sample(3), two.per_sample(3), atol=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    repa = RepaConfig(width=5, block=1, hidden=7)
    for kind in ("ddpm", "flow"):
        head = HeadConfig(kind=kind, depth=1, width=24, batch_multiplier=2)  # type: ignore[arg-type]
        changes = {"head": head, "qk_norm": True, "repa": repa}
        model = LightGen(debug().model_copy(update=changes))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        latents, states, lengths = batch(3)
        mask = torch.rand(3, 16) < 0.6
        rows = model.num_draws(mask)
        out = model(
            latents,
            states,
            lengths,
            mask,
            times=draw_times(head, rows, torch.Generator().manual_seed(0)),
            noise=torch.randn(rows, 64),
            drop_text=torch.tensor([True, False, False]),
            features=torch.randn(3, 16, 5),
        )
        assert out.repa is not None
        ((out.mse + out.vb).mean() + out.repa.mean()).backward()
        missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert missing == []


def test_per_sample_errors_average_a_samples_own_tokens(model: LightGen) -> None:
    latents, states, lengths = batch(2)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[0, :3], mask[1, :7] = True, True
    rows = model.num_draws(mask)
    out = model(
        latents, states, lengths, mask, times=torch.full((rows,), 0.5), noise=torch.ones(rows, 64)
    )
    first = out.mse[: 3 * 2].mean()
    assert torch.allclose(out.per_sample(2)[0], first)
    assert torch.allclose(out.per_sample(2)[1], out.mse[6:].mean())


def test_gather_index_keeps_raster_order() -> None:
    chosen = torch.tensor([[False, True, True, False], [True, False, False, False]])
    places = gather_index(chosen)
    assert places.real is not None
    assert places.index[places.real].tolist() == [1, 2, 0]
    assert places.real.tolist() == [[True, True], [True, False]]


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="image size 72 must be a multiple of the token size 16"):
        debug().grid(72)
    with pytest.raises(ValueError, match="width 30 must be a multiple of num_heads 4"):
        ModelConfig(width=30, num_heads=4)


def test_places_made_before_give_the_same_losses(model: LightGen) -> None:
    latents, states, lengths = batch(3)
    mask = torch.rand(3, 16, generator=torch.Generator().manual_seed(4)) < 0.6
    rows = model.num_draws(mask)
    draws = {"times": torch.full((rows,), 0.5), "noise": torch.ones(rows, 64)}
    split = Split.of(mask).map(torch.clone)
    plain = model(latents, states, lengths, mask, **draws)
    given = model(latents, states, lengths, split, **draws)
    assert torch.equal(plain.mse, given.mse)
    assert torch.equal(plain.sample, given.sample)


def test_alignment_is_a_cosine_distance_and_its_tensors_are_there_when_asked_for() -> None:
    repa = RepaConfig(width=5, block=2, hidden=7)
    model = LightGen(debug().model_copy(update={"repa": repa}))
    extra = set(model.state_dict()) - set(LightGen(debug()).state_dict())
    assert {name.split(".")[0] for name in extra} == {"repa"}
    states = [torch.randn(3, 16, 32) for _ in range(2)]
    seen = model.repa(states[1]).detach()
    assert torch.allclose(model.align_features(states, 3 * seen), torch.zeros(3), atol=1e-5)
    assert torch.allclose(model.align_features(states, -seen), torch.full((3,), 2.0), atol=1e-5)
    with pytest.raises(ValueError, match="without repa"):
        LightGen(debug()).align_features(states, seen)
    with pytest.raises(ValueError, match=r"repa\.block 3 must be at most decoder_depth 2"):
        ModelConfig(**{**debug().model_dump(), "repa": {"width": 5, "block": 3}})


@pytest.mark.parametrize("masked", [[16, 16, 16], [16, 3, 9]])
def test_no_parameter_is_left_out_where_samples_have_nothing_visible(masked: list[int]) -> None:
    torch.manual_seed(0)
    model = LightGen(debug()).init_weights(torch.Generator().manual_seed(0))
    latents, states, lengths = batch(3)
    mask = torch.arange(16) < torch.tensor(masked)[:, None]
    rows = model.num_draws(mask)
    draws = {"times": torch.full((rows,), 0.5), "noise": torch.ones(rows, 64)}
    out = model(latents, states, lengths, mask, drop_text=torch.zeros(3).bool(), **draws)
    out.mse.mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    alone = model(
        latents[:1],
        states[:1],
        lengths[:1],
        mask[:1],
        times=draws["times"][:32],
        noise=draws["noise"][:32],
    )
    assert torch.allclose(alone.mse, out.mse[:32], atol=1e-5)
