from pathlib import Path

import numpy as np
import pytest

from pipeline.config import EncoderEmbedding, HashedEmbedding
from pipeline.embeddings import embed

pytest.importorskip("sklearn")

FOLDER = Path(__file__).parent.parent.parent / "infra" / "models" / "shapes" / "text_encoder"
HASHED = HashedEmbedding(kind="hashed", dimensions=8)
ENCODER = EncoderEmbedding(kind="encoder", model=str(FOLDER), batch_size=3)
CAPTIONS = [
    "a red circle above a blue square",
    "a red circle below a blue square",
    "two green crosses",
    "two green crosses",
    "three yellow triangles",
    "a black circle",
]


@pytest.mark.parametrize("config", [HASHED, ENCODER], ids=["hashed", "encoder"])
def test_vectors_have_length_one_and_equal_captions_equal_vectors(config) -> None:
    vectors = embed(CAPTIONS, config, 0, "cpu")
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[2], vectors[3], atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert np.array_equal(vectors, embed(CAPTIONS, config, 0, "cpu"))


def test_an_encoders_vector_does_not_depend_on_its_batch() -> None:
    together = embed(CAPTIONS, ENCODER, 0, "cpu")
    for row, caption in enumerate(CAPTIONS):
        assert np.allclose(embed([caption], ENCODER, 0, "cpu")[0], together[row], atol=1e-5)


def test_a_caption_of_unknown_words_is_nought() -> None:
    vectors = embed([*CAPTIONS, "of the and"], HASHED, 0, "cpu")
    assert not vectors[-1].any()
    assert np.isfinite(vectors).all()
