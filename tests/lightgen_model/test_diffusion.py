"""The noise processes against the published constants (lightgen.md 5.4) and exact cases."""

import math

import pytest
import torch

from lightgen_model.diffusion import Ddpm, flow_loss, flow_times


def test_the_cosine_schedule_has_the_published_values() -> None:
    ddpm = Ddpm.cosine(1000)
    betas, abar = ddpm.betas, ddpm.alphas_bar
    assert betas[0].item() == pytest.approx(4.12842248e-05, rel=1e-6)
    assert betas[999].item() == pytest.approx(0.999)
    expected = {
        0: 0.999958716,
        100: 0.971575682,
        250: 0.845887986,
        500: 0.492285172,
        750: 0.143178646,
        900: 0.0236161088,
    }
    for step, value in expected.items():
        assert abar[step].item() == pytest.approx(value, rel=1e-7)
    assert abar[999].item() == pytest.approx(2.42876691e-09, rel=1e-6)
    log_variance = ddpm.posterior_log_variance
    assert log_variance[[0, 1, 500, 999]].tolist() == pytest.approx(
        [-10.7340825, -10.7340825, -5.76162185, -0.00100292667], rel=1e-6
    )
    of_start, of_current = ddpm.posterior_mean_coefficients
    assert of_start[500].item() == pytest.approx(0.0043678669, rel=1e-6)
    assert of_current[500].item() == pytest.approx(0.995356279, rel=1e-6)


RESPACED = {
    100: ([0, 10, 20, 30, 40, 50, 61, 71, 81, 91, 101], [979, 989, 999]),
    25: (
        [0, 42, 83, 125, 166, 208, 250, 291, 333, 375, 416, 458, 500],
        [541, 583, 624, 666, 708, 749, 791, 832, 874, 916, 957, 999],
    ),
    20: ([0, 53, 105, 158, 210, 263, 315, 368], [841, 894, 946, 999]),
    10: ([0, 111], [999]),
}


@pytest.mark.parametrize("num_steps", RESPACED)
def test_respacing_keeps_the_published_steps(num_steps: int) -> None:
    start, end = RESPACED[num_steps]
    kept = Ddpm.cosine(1000).respaced(num_steps).timesteps.tolist()
    assert kept[: len(start)] == start
    assert kept[-len(end) :] == end
    assert len(kept) == num_steps


def test_respacing_recomputes_the_betas() -> None:
    respaced = Ddpm.cosine(1000).respaced(100)
    assert respaced.timesteps[50] == 505
    assert respaced.betas[[1, 50, 99]].tolist() == pytest.approx(
        [6.79840069e-04, 0.0341717013, 0.999989999], rel=1e-6
    )


def test_too_many_head_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="1001 head steps; allowed: 1 to 1000"):
        Ddpm.cosine(1000).respaced(1001)


@pytest.mark.parametrize(
    ("t", "mse", "vb"),
    [
        (0, 0.4774128, 1.3058398),
        (1, 0.5041140, 0.3242705),
        (10, 0.5150374, 0.0510524),
        (100, 0.4682901, 0.0064132),
        (500, 0.5431553, 0.0024476),
        (900, 0.4525132, 0.0067347),
        (998, 0.5439904, 1.1772218),
        (999, 0.4667576, 336.3581543),
    ],
)
def test_a_zero_network_has_the_published_losses(t: int, mse: float, vb: float) -> None:
    k = torch.arange(8 * 16, dtype=torch.float64)
    x = torch.sin(0.1 * k + 0.2).float().view(8, 16)
    noise = torch.sin(0.7 * k).float().view(8, 16)
    row = [0, 1, 10, 100, 500, 900, 998, 999].index(t)
    times = torch.tensor([0, 1, 10, 100, 500, 900, 998, 999])

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(x), 32)

    losses = Ddpm.cosine(1000).losses(net, x, times, noise)
    assert losses[0][row].item() == pytest.approx(mse, rel=1e-6)
    assert losses[1][row].item() == pytest.approx(vb, rel=2e-5, abs=3e-7)


def test_the_flow_target_is_noise_minus_data() -> None:
    x, noise = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    exact = flow_loss(lambda x, t: torch.tensor([[2.0, -3.0]]), x, torch.tensor([0.3]), noise)
    assert exact.item() == pytest.approx(0.0, abs=1e-12)
    zero = flow_loss(lambda x, t: torch.zeros(1, 2), x, torch.tensor([0.3]), noise)
    assert zero.item() == pytest.approx((4 + 9) / 2)


def test_a_higher_shift_means_noisier_times() -> None:
    means = [
        flow_times(20_000, shift, 1, torch.Generator().manual_seed(0)).mean().item()
        for shift in (0.0, 1.0)
    ]
    assert means[0] == pytest.approx(0.5, abs=0.01)
    assert means[1] > 0.65
    assert not math.isclose(means[0], means[1])


def test_tables_first_made_while_drawing_elsewhere_serve_training() -> None:
    with torch.inference_mode(), torch.device("meta"):
        Ddpm.cosine(77).respaced(7)
        Ddpm.cosine(77).losses(
            lambda x, t: torch.zeros(2, 6),
            torch.ones(2, 3),
            torch.zeros(2).long(),
            torch.ones(2, 3),
        )
    weight = torch.ones(3, 6, requires_grad=True)
    losses = Ddpm.cosine(77).losses(
        lambda x, t: x @ weight, torch.ones(2, 3), torch.tensor([0, 76]), torch.ones(2, 3)
    )
    sum(losses).sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
