"""One step of pre-training: the same whatever the number of processes."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from lightgen_model.config import RepaConfig, debug
from lightgen_model.model import LightGen
from pipeline import student
from pipeline.batches import FeatureBatches, TableRows
from pipeline.checkpoints import TrainingFolder
from pipeline.draws import row_generators
from pipeline.pretraining import PhaseData, flops_of, program, train_student
from pipeline.pretraining_step import PretrainingStep
from pipeline.starting import RAW
from pipeline.states import saved
from pipeline.training import Part
from tests.pipeline.two_processes import CONFIG, batches, network


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


REPA = RepaConfig(width=5, block=1, hidden=7, weight=0.5)


def aligned(repa: RepaConfig = REPA, first_image: int = 0, **loop: int) -> PretrainingStep:
    """A step with a vision model's features; their table begins at another image."""
    config = CONFIG.model_copy(update={"model": debug().model_copy(update={"repa": repa}), **loop})
    seen = torch.randn(12, 16, 5, generator=torch.Generator().manual_seed(0)).half().numpy()
    images = list(range(first_image, first_image + 12))
    table = pa.table({"image_id": images, "alignment": [one.tobytes() for one in seen]})
    data = FeatureBatches.load(
        TableRows(batches().source.held.append_column("image_id", [list(range(12))])),
        batches().text,
        alignment=TableRows(table),
        alignment_width=5,
        cells=8,
        scale=1.0,
        shift=0.0,
        batch_size=8,
        seed=1,
    )
    return PretrainingStep(config, data, 3)


def test_alignment_adds_its_weight_and_its_tensors_learn() -> None:
    step = aligned()
    model = LightGen(step.config.model).init_weights(torch.Generator().manual_seed(0))
    loss, extras = step(model, 5, Part())
    expected = extras["mse"] + extras["vb"] + 0.5 * extras["repa"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert model.repa.fc1.weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match="has other pictures"):
        aligned(first_image=1)


def test_alignment_ends_after_its_steps_of_all_phases() -> None:
    until = aligned(REPA.model_copy(update={"steps": 6}))
    model = LightGen(until.config.model).init_weights(torch.Generator().manual_seed(0))
    last, _ = until(model, 5, Part())
    assert torch.equal(last, aligned()(model, 5, Part())[0])
    loss, extras = replace(until, before=1)(model, 5, Part())
    assert "repa" not in extras
    loss.backward()
    assert model.repa.fc1.weight.grad is None
    # Several processes need a gradient of every tensor.
    shared = aligned(REPA.model_copy(update={"steps": 5}), num_processes=2)
    shared(model, 5, Part())[0].backward()
    assert model.repa.fc1.weight.grad.abs().max() == 0


@pytest.fixture
def grown(debug_run, walk, tmp_path):
    """A student of one phase, and one that grows from it to the next size."""
    plain = {"evaluation": None, "student.log_every": 1, "student.tracker": "none"}
    first = debug_run(plain)
    upstream = walk(first)
    train_student(first, upstream)
    place = student.folder(first, upstream)
    phase = {**first.student.phases[0].model_dump(), "image_size": 128, "steps": 1}
    still = {"learning_rate": 1e-12, "weight_decay": 0.0}
    changes = {"student.start": str(place.final), "student.phases": [{**phase, "optimizer": still}]}
    second = debug_run({**plain, **changes})
    train_student(second, upstream)
    return place, student.folder(second, upstream)


def test_a_student_grows_from_weights_and_average_of_another_run(grown) -> None:
    place, after = grown
    average = load_file(place.final / "model.safetensors")
    raw = load_file(place.final / RAW)
    assert not torch.equal(average["text_in.weight"], raw["text_in.weight"])
    start = load_file(after.path / student.UNTRAINED / "model.safetensors")
    state = torch.load(saved(after.path / "phase-0-128")[-1], weights_only=True)
    for name, value in raw.items():
        assert torch.equal(start[name], value)
        assert torch.allclose(state["model"][name], value, atol=1e-6)
        # One step of the warmed-up average: nine tenths of the way to the weights.
        expected = torch.lerp(average[name], value, 0.9)
        assert torch.allclose(state["average"][name], expected, atol=1e-6), name


def test_the_next_phase_goes_on_with_weights_and_average(debug_run, walk) -> None:
    phase = {"steps": 2, "batch_size": 4, "optimizer": {"learning_rate": 1e-2, "ema_decay": 0.5}}
    still = {"learning_rate": 1e-12, "weight_decay": 0.0}
    phases = [
        {**phase, "image_size": 64},
        {**phase, "image_size": 128, "steps": 1, "optimizer": still},
    ]
    config = debug_run({"evaluation": None, "student.phases": phases})
    upstream = walk(config)
    train_student(config, upstream)
    place = student.folder(config, upstream).path
    one, two = (
        torch.load(saved(place / name)[-1], weights_only=True)
        for name in ("phase-0-64", "phase-1-128")
    )
    assert not torch.equal(one["model"]["text_in.weight"], one["average"]["text_in.weight"])
    for name, value in one["model"].items():
        expected = torch.lerp(one["average"][name], value, 0.9)
        assert torch.allclose(two["average"][name], expected, atol=1e-6), name
    assert two["position"]["table"] == upstream["features"].snapshots["features_128"].table


def test_a_full_disk_ends_the_program_with_one_sentence(debug_run, tmp_path, monkeypatch):
    config = debug_run()
    (tmp_path / "upstream.json").write_text("{}")
    words = [
        "--config",
        str(tmp_path / "debug.yaml"),
        "--upstream",
        str(tmp_path / "upstream.json"),
    ]
    monkeypatch.setattr("sys.argv", ["pretraining", *words])

    def train(run, upstream):
        raise RuntimeError("[enforce fail] No space left on device")

    with pytest.raises(SystemExit, match=f"the disk is full at {config.root} "):
        program(train, lambda run, _: TrainingFolder(Path(run.root), "student", "one"), "Train.")


SMALL = {"features.latents": "means", "features.text_states": "int8"}


def test_means_and_eight_bits_are_read_as_moments_and_bfloat16_are(debug_run, walk) -> None:
    taken = []
    for config in (debug_run(), debug_run(SMALL)):
        data = PhaseData(config, walk(config)).batches(0, config.student.phases[0])
        taken.append(data.take(0, range(4), row_generators(0, 0, range(4))))
    plain, small = taken
    # Latents are drawn with the posterior's small spread from moments, and without it from means.
    assert (small.latents - plain.latents).std() < 0.2 * plain.latents.std()
    assert torch.equal(small.lengths, plain.lengths)
    off = (small.states - plain.states).square().sum() / plain.states.square().sum()
    assert 0.003 < off.sqrt() < 0.01


def test_a_student_learns_from_means_and_eight_bits(debug_run, walk) -> None:
    config = debug_run({"evaluation": None, "student.tracker": "none", **SMALL})
    upstream = walk(config)
    train_student(config, upstream)
    found = student.find(config, upstream)
    assert found is not None
    weights = load_file(student.folder(config, upstream).final / "model.safetensors")
    assert all(value.isfinite().all() for value in weights.values())
