"""Growing: a student starts from another's checkpoint, weights and average both."""

from pathlib import Path

import pytest
import torch

from lightgen_model import checkpoint
from lightgen_model.config import ModelConfig, RepaConfig, debug
from lightgen_model.model import LightGen
from pipeline.config import load_run
from pipeline.starting import RAW, origins_of, save_weights, start_from

REPA = RepaConfig(width=5, block=1, hidden=7)


def network(seed: int, config: ModelConfig | None = None) -> LightGen:
    return LightGen(config or debug()).init_weights(torch.Generator().manual_seed(seed))


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A checkpoint whose trained weights and average differ."""
    folder = tmp_path / "final"
    save_weights(folder, debug(), network(1).state_dict(), {}, raw=network(0).state_dict())
    return folder


def same(one: dict[str, torch.Tensor], model: LightGen) -> bool:
    return all(torch.equal(value, one[name]) for name, value in model.state_dict().items())


def test_weights_and_average_are_both_handed_on(left: Path) -> None:
    model = network(2)
    average = start_from(left, model)
    assert same(model.state_dict(), network(0))
    assert same(average, network(1))


def test_without_raw_weights_the_average_stands_for_both(left: Path) -> None:
    (left / RAW).unlink()
    model = network(2)
    average = start_from(left, model)
    assert same(model.state_dict(), network(1))
    assert same(average, network(1))
    assert all(average[n].data_ptr() != v.data_ptr() for n, v in model.state_dict().items())


def test_a_start_of_another_shape_is_named(left: Path) -> None:
    for change in ({"cross_depth": 3}, {"width": 64}, {"qk_norm": True}):
        other = network(2, debug().model_copy(update=change))
        with pytest.raises(ValueError, match=r"student\.start: .* does not fit .* such as"):
            start_from(left, other)


def test_a_folder_that_is_no_checkpoint_and_a_damaged_one_are_named(left: Path) -> None:
    with pytest.raises(ValueError, match="is no checkpoint"):
        start_from(left.parent, network(2))
    (left / RAW).write_bytes((left / RAW).read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{RAW} cannot be read"):
        start_from(left, network(2))


def test_what_only_training_reads_is_not_in_the_checkpoint_to_draw_with(tmp_path: Path) -> None:
    config = debug().model_copy(update={"repa": REPA})
    trained = network(0, config)
    save_weights(tmp_path / "c", config, network(1, config).state_dict(), {}, trained.state_dict())
    drawn = checkpoint.load(tmp_path / "c", expected=debug())
    assert not any(name.startswith("repa.") for name in drawn.state_dict())
    with_repa, without = network(2, config), network(2)
    start_from(tmp_path / "c", with_repa)
    assert same(with_repa.state_dict(), trained)
    start_from(tmp_path / "c", without)
    assert torch.equal(without.text_in.weight, trained.text_in.weight)


def test_a_checkpoint_says_of_whom_it_learned() -> None:
    origins = origins_of(load_run("full"))
    assert origins["teacher"] == "black-forest-labs/FLUX.1-schnell"
    assert origins["teacher_licence"] == "Apache-2.0"
    assert origins["text_encoder"] == "google/flan-t5-xxl"
    assert origins_of(load_run("tiny"))["captions"] == "shapes (MIT)"
    pictures = {"kind": "pictures", "name": "set", "paths": ["a.tar"], "format": "webdataset"}
    run = load_run("full", {"images.teacher": {**pictures, "licence": "CC0-1.0"}})
    assert origins_of(run)["teacher"] == "set"
