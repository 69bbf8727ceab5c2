"""The frozen parts: what is given is taken, what is not is read from where the checkpoint says."""

from pathlib import Path

import pytest

from lightgen_model.parts import frozen_parts

MODELS = Path(__file__).parent.parent.parent / "infra" / "models" / "shapes"


def test_what_is_given_needs_no_place() -> None:
    given = {"vae": object(), "text_encoder": None, "tokenizer": None}
    assert frozen_parts({}, given) == given


def test_the_checkpoint_names_the_rest() -> None:
    parts = frozen_parts({"text_encoder": str(MODELS / "text_encoder")}, {"vae": None})
    assert parts["text_encoder"].config.d_model == 128
    assert parts["tokenizer"]("red").input_ids[-1] == parts["tokenizer"].eos_token_id


def test_a_missing_place_is_named() -> None:
    with pytest.raises(ValueError, match="names no text_encoder under `about`; give text_encoder="):
        frozen_parts({}, {"vae": None})
