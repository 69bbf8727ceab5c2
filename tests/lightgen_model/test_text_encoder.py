"""The frozen T5 of the shapes world: lengths, padding, batches, and where captions are cut."""

from pathlib import Path

import pytest
import torch

from lightgen_model.text_encoder import TextEncoder

FOLDER = Path(__file__).parent.parent.parent / "infra" / "models" / "shapes" / "text_encoder"
CAPTIONS = ["a red circle", "a red circle above a blue square", "three green crosses"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load(FOLDER, length=20)


def test_states_are_padded_with_zeros_beyond_each_length(encoder: TextEncoder) -> None:
    states, lengths = encoder.encode(CAPTIONS)
    assert states.shape == (3, 20, 128)
    assert lengths.tolist() == [4, 8, 4]  # a token a word, and the end
    for row, length in zip(states, lengths.tolist(), strict=True):
        assert row[:length].abs().amax(dim=1).min() > 0
        assert row[length:].abs().max() == 0


def test_states_do_not_depend_on_the_batch(encoder: TextEncoder) -> None:
    together, lengths = encoder.encode(CAPTIONS)
    for number, caption in enumerate(CAPTIONS):
        alone, length = encoder.encode([caption])
        assert length.item() == lengths[number]
        assert torch.allclose(alone[0], together[number], atol=1e-5)


def test_a_long_caption_is_cut_at_the_length() -> None:
    short = TextEncoder.load(FOLDER, length=5)
    states, lengths = short.encode(["a red circle above a blue square", "a red circle"])
    assert states.shape == (2, 5, 128)
    assert lengths.tolist() == [5, 4]


def test_order_and_words_make_a_difference(encoder: TextEncoder) -> None:
    captions = ["a red circle above a blue square", "a blue circle above a red square"]
    states, lengths = encoder.encode(captions)
    assert lengths[0] == lengths[1]
    assert (states[0] - states[1]).abs().max() > 1e-3


def test_loading_twice_is_the_same_encoder(encoder: TextEncoder) -> None:
    again, _ = TextEncoder.load(FOLDER, length=20).encode(CAPTIONS)
    assert torch.equal(again, encoder.encode(CAPTIONS)[0])
