"""The student as a diffusers model: saved, loaded, and drawing where hooks can see it."""

from pathlib import Path

import pytest
import torch

from lightgen_model.config import SamplingConfig
from lightgen_model.model import LightGen
from lightgen_model.student import LightGenStudent
from tests.lightgen_model.conftest import texts


def test_a_folder_brings_back_weights_values_and_origin(model: LightGen, tmp_path: Path) -> None:
    one = LightGenStudent.of(model, {"stage": "dpo", "beta": 100, "revision": ""})
    one.save_pretrained(tmp_path)
    other = LightGenStudent.from_pretrained(tmp_path)
    assert other.values == model.config
    assert other.about == {"stage": "dpo", "beta": "100"}
    states = other.network.state_dict()
    assert all(torch.equal(states[name], value) for name, value in model.state_dict().items())
    assert not other.training


def test_wrapping_copies_no_weight(model: LightGen) -> None:
    assert LightGenStudent.of(model, {}).network is model


@pytest.mark.parametrize("keep", [True, False], ids=["padding attended", "padding masked"])
def test_no_text_at_all_is_the_null_text(model: LightGen, keep: bool) -> None:
    config = model.config.model_copy(update={"attend_padding": keep})
    network = LightGen(config).eval()
    network.load_state_dict(model.state_dict())
    states, lengths = texts(2, config.text_length)
    values = SamplingConfig(num_iterations=2, head_steps=2, guidance=0)
    call = {"image_size": 32, "seeds": [0, 1]}
    unconditional = LightGenStudent.of(network, {})(states, lengths, values, **call)
    values = values.model_copy(update={"guidance": 3.0})
    no_text = LightGenStudent.of(network, {})(states, lengths * 0, values, **call)
    torch.testing.assert_close(no_text, unconditional, rtol=1e-4, atol=1e-4)
