"""Published checkpoints, and the published network's golden values (lightgen.md 5.3, 5.4)."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import stats
from torch import Tensor

from lightgen_model.config import lightgen_published
from lightgen_model.model import LightGen
from lightgen_model.published import infer_config, load_published, to_published
from tests.lightgen_model.golden import (
    LOAD,
    SMALL,
    TEXT_LENGTH,
    drawn,
    filled,
    inputs,
    outspoken_model,
    released,
    sample_case,
    small_model,
    stages,
)

GRID = (4, 4)
SIZES: dict[str, Any] = {
    "num_heads": None,
    "patch_size": 2,
    "latent_stride": 8,
    "text_length": 128,
}


@pytest.fixture(scope="module")
def found() -> dict[str, Tensor]:
    return stages(small_model(), inputs(*GRID), GRID)


@pytest.mark.parametrize(
    ("stage", "total", "first"),
    [
        ("tokens", 5.216491, [0.198669, 0.295520, 0.841471, 0.891207]),
        ("encoder table", 0.036855, [0.052521, 0.048027, 0.037033, 0.021027]),
        ("encoded", 0.268546, [-0.628486, -0.177587, 0.290673, 0.636595]),
        ("decoded", -12.037308, [0.025316, 1.971901, -0.248988, 1.007544]),
        ("text", -3.002056, [-0.205959, 0.875988, 0.851358, 0.198092]),
        ("z", 6.464024, [-0.059758, -0.851130, -1.473194, -1.145906]),
        ("z_null", 6.521836, [-0.105596, -0.891226, -1.476434, -1.116567]),
        ("head", -31.639976, [-0.441307, -1.664322, -1.121736, 0.620032]),
        ("mse", 61.359016, [1.808121, 1.788127, 1.962976, 2.089585]),
        ("vb", 1347.514682, [2.579731, 0.059438, 0.035148, 0.026001]),
    ],
)
def test_every_stage_has_the_published_values(
    found: dict[str, Tensor], stage: str, total: float, first: list[float]
) -> None:
    values = found[stage].double()
    assert values.sum().item() == pytest.approx(total, rel=1e-4, abs=1e-4)
    assert values.flatten()[:4].tolist() == pytest.approx(first, abs=2e-5)


def test_the_masked_means_are_the_published_ones(found: dict[str, Tensor]) -> None:
    mask = inputs(*GRID)["mask"].flatten()
    mse, vb = found["mse"][mask].mean(), found["vb"][mask].mean()
    assert mse.item() == pytest.approx(1.9266557, rel=1e-5)
    assert (mse + vb).item() == pytest.approx(58.066593, rel=1e-4)


def test_forward_gives_the_published_masked_losses(found: dict[str, Tensor]) -> None:
    model, given = small_model(), inputs(*GRID)
    mask, multiplier = given["mask"], model.config.head.batch_multiplier
    flat = mask.flatten()
    losses = model(
        given["latents"],
        given["text"],
        torch.tensor([TEXT_LENGTH, TEXT_LENGTH]),
        mask,
        times=given["times"][flat].repeat_interleave(multiplier),
        noise=given["noise"][flat].repeat_interleave(multiplier, 0),
    )
    wanted = found["mse"][flat].repeat_interleave(multiplier)
    assert torch.allclose(losses.mse, wanted, atol=1e-5)
    assert (losses.mse + losses.vb).mean().item() == pytest.approx(58.066593, rel=1e-4)


def test_guided_noise_has_the_published_values(found: dict[str, Tensor]) -> None:
    net, token_dim = small_model().head.net, SMALL.token_dim
    x, t = inputs(*GRID)["noise"][:8], torch.full((8,), 500)
    with_text, without = (
        net(x, t, net.condition_embed(found[name].flatten(0, 1)[:8]))[:, :token_dim]
        for name in ("z", "z_null")
    )
    guided = without + 4.0 * (with_text - without)
    first = [1.480596, -0.018860, -1.520341, -1.394441]
    assert guided.flatten()[:4].tolist() == pytest.approx(first, abs=5e-5)


def test_a_whole_call_under_seed_0_has_the_published_loss() -> None:
    """The released forward's order of draws: shuffles, ratio, times, noise; repeats are tiled."""
    model, given = small_model(), inputs(*GRID)
    numbers, generator = np.random.RandomState(0), torch.Generator().manual_seed(0)
    orders = [numbers.permutation(16) for _ in range(2)]
    ratio = stats.truncnorm(-1.2, 0, loc=1.0, scale=0.25).rvs(1, random_state=numbers)[0]
    mask = torch.zeros(2, 16, dtype=torch.bool)
    for row, order in enumerate(orders):
        mask[row, torch.tensor(order[: math.ceil(16 * ratio)])] = True
    times = torch.randint(0, 1000, (2 * 16 * 2,), generator=generator).view(2, 32)
    noise = torch.randn(2 * 16 * 2, 16, generator=generator).view(2, 32, 16)
    chosen = mask.flatten()
    losses = two_draws(model)(
        given["latents"],
        given["text"],
        torch.tensor([TEXT_LENGTH, TEXT_LENGTH]),
        mask,
        times=times[:, chosen].T.flatten(),
        noise=noise[:, chosen].transpose(0, 1).flatten(0, 1),
    )
    assert [order[:4].tolist() for order in orders] == [[1, 6, 8, 9], [2, 14, 12, 9]]
    assert mask.sum(1).tolist() == [13, 13]
    assert (losses.mse + losses.vb).mean().item() == pytest.approx(2.398037, rel=1e-5)


@pytest.mark.parametrize(
    ("grid", "num_iterations", "changes", "total", "first"),
    [
        (
            (4, 4),
            16,
            {},
            2034716.125,
            [-109537.984, 33361.934, -159117.938, -59603.313],
        ),
        (
            (4, 8),
            8,
            {"guidance_schedule": "linear", "temperature": 0.9},
            4042290.0,
            [-109494.406, 32817.102, -159004.985, -61497.961],
        ),
    ],
)
def test_whole_pictures_under_a_noise_tape_have_the_released_values(
    grid: tuple[int, int],
    num_iterations: int,
    changes: dict[str, object],
    total: float,
    first: list[float],
) -> None:
    """Taken from the released code (`test_reference.py`); 1% more guidance is already too far."""
    latents = drawn(outspoken_model(), sample_case("", grid, num_iterations, **changes))
    assert latents.flatten()[:4].tolist() == pytest.approx(first, abs=1.0)
    assert latents.sum().item() == pytest.approx(total, rel=1e-4)


def two_draws(model: LightGen) -> LightGen:
    """The same student with two draws a token, as the golden call had."""
    head = model.config.head.model_copy(update={"batch_multiplier": 2})
    twin = LightGen(model.config.model_copy(update={"head": head})).eval()
    twin.load_state_dict(model.state_dict())
    return twin


@pytest.mark.parametrize("part", ["model", "model_ema"])
def test_a_released_file_gives_the_chosen_weights(tmp_path: Path, part: str) -> None:
    path = released(tmp_path / "checkpoint-20.pth")
    model = load_published(path, weights=part, **LOAD)  # type: ignore[arg-type]
    factor = 1 if part == "model" else 2
    wanted = {name: factor * tensor for name, tensor in filled().items()}
    given = to_published(model.state_dict())
    assert model.config == SMALL
    assert not model.training
    assert {name: t for name, t in given.items() if not torch.equal(t, wanted[name])} == {}
    assert given.keys() == wanted.keys()


def test_bare_state_dicts_load_from_every_kind_of_file(tmp_path: Path) -> None:
    save_file(filled(), tmp_path / "weights.safetensors")
    torch.save(filled(), tmp_path / "new.pth")
    torch.save(filled(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("weights.safetensors", "new.pth", "old.pth"):
        given = to_published(load_published(tmp_path / name, **LOAD).state_dict())
        assert all(torch.equal(given[key], value) for key, value in filled().items())


def test_half_precision_files_become_float32() -> None:
    half = {name: tensor.bfloat16() for name, tensor in filled().items()}
    assert {t.dtype for t in load_published(half, **LOAD).state_dict().values()} == {torch.float32}


def test_the_published_size_is_read_from_its_shapes() -> None:
    with torch.device("meta"):
        state = LightGen(lightgen_published()).state_dict()
    theirs = to_published(state)
    assert infer_config("here", theirs, **SIZES) == lightgen_published()
    assert theirs["diffloss.net.res_blocks.7.adaLN_modulation.1.weight"].shape == (4608, 1536)
    assert theirs["text_emb.text_proj.linear_1.weight"].shape == (1024, 4096)
    assert len(theirs) == 813


def _set(name: str, change: Callable[[Tensor], object]) -> Callable[[dict[str, object]], None]:
    def spoil(state: dict[str, object]) -> None:
        state[name] = change(state[name])  # type: ignore[arg-type]

    return spoil


def _nan(tensor: Tensor) -> Tensor:
    return tensor.index_fill(0, torch.tensor([0]), float("nan"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("cross_norm.bias"), r"1 missing \(cross_norm\.bias\)"),
        (lambda s: s.pop("z_proj.weight"), r"z_proj\.weight is missing"),
        (lambda s: s.update(buffer=torch.ones(1)), r"1 unknown \(buffer\)"),
        (lambda s: s.update(mask_token="no"), r"not a tensor \(mask_token\)"),
        (_set("decoder_norm.weight", lambda t: t[:5]), r"decoder_norm\.weight \(5,\) for \(32,\)"),
        (_set("fake_latent", lambda t: t.int()), r"not floating \(fake_latent torch\.int32\)"),
        (_set("z_proj_ln.bias", _nan), r"NaN or infinite \(z_proj_ln\.bias\)"),
        (_set("decoder_embed.bias", lambda t: t / 0), r"infinite \(decoder_embed\.bias\)"),
        (_set("z_proj.weight", lambda t: t.flatten()), r"z_proj\.weight has the shape \(512,\)"),
    ],
)
def test_what_does_not_fit_is_named(
    spoil: Callable[[dict[str, object]], None], message: str
) -> None:
    state: dict[str, object] = dict(filled())
    spoil(state)
    with pytest.raises(ValueError, match=message):
        load_published(state, **LOAD)


def test_a_width_without_known_heads_asks_for_them() -> None:
    with pytest.raises(ValueError, match="number of heads at width 32; give num_heads"):
        load_published(filled(), text_length=TEXT_LENGTH)


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = released(tmp_path / "c.pth", model_ema=None)
    with pytest.raises(ValueError, match=r"c\.pth has no model_ema; it has args, epoch, model"):
        load_published(path, weights="model_ema", **LOAD)


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.pth: no such file"):
        load_published(tmp_path / "absent.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list, not tensors by name"):
        load_published(tmp_path / "list.pth")


def test_a_tensor_that_the_published_network_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"attn_gate\.weight: the published network has no such"):
        to_published({"attn_gate.weight": torch.ones(1)})
