"""The frozen T5 of the shapes world, and small ones of other kinds: padding, batches, cuts."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    T5Config,
    T5ForConditionalGeneration,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
    T5GemmaModuleConfig,
)

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


def test_less_padding_changes_nothing_but_rounding(encoder: TextEncoder) -> None:
    tokens = encoder.tokens(CAPTIONS)
    whole, lengths = encoder.encode(CAPTIONS)
    short, same = encoder.encode_tokens(tokens, 8)
    assert short.shape == (3, 8, 128)
    assert torch.equal(same, lengths)
    assert torch.allclose(short, whole[:, :8], atol=1e-5)


# --- kinds --------------------------------------------------------------------------------------

SIZES = {"num_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 32, "d_model": 16}
GEMMA = {
    "vocab_size": 256,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "sliding_window": 64,
}


def whole_model(kind: str) -> torch.nn.Module:
    """A sequence-to-sequence model as the hub has it, encoder and decoder, random weights."""
    torch.manual_seed(0)
    if kind == "t5":
        return T5ForConditionalGeneration(
            T5Config(vocab_size=256, decoder_start_token_id=0, **SIZES)
        ).eval()
    sides = {side: T5GemmaModuleConfig(**GEMMA) for side in ("encoder", "decoder")}
    return T5GemmaForConditionalGeneration(T5GemmaConfig(**sides, vocab_size=256)).eval()


@pytest.fixture(params=["t5", "t5gemma"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    whole_model(request.param).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FOLDER / name, tmp_path)
    return str(request.param)


def test_the_encoder_of_a_whole_model_is_loaded(kind: str, tmp_path: Path) -> None:
    ours = TextEncoder.load(tmp_path, length=12)
    states, lengths = ours.encode(CAPTIONS)
    whole = whole_model(kind)
    for row, tokens in enumerate(ours.tokens(CAPTIONS)):
        alone = whole.get_encoder()(torch.tensor([tokens])).last_hidden_state[0]
        assert len(tokens) == lengths[row]
        assert torch.allclose(states[row, : len(tokens)], alone, atol=1e-5)


def test_a_model_of_another_kind_is_named(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a model of type bert; allowed: t5, umt5, t5gemma"):
        TextEncoder.load(tmp_path, length=12)
