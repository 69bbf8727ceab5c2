"""Embeddings of captions: where each stands among all, as vectors of length one.

In:    captions and how they are to be embedded.
Out:   one vector a caption; their scalar products are similarities.
Rerun: the same captions and values give the same vectors, on the same machine.

Hashed words need no model and no network: they see what is said, not what it means. A sentence
encoder sees more, where its weights are at hand.

Shapes: N captions, D dimensions, L tokens.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from pipeline.config import EmbeddingConfig, EncoderEmbedding, HashedEmbedding

FEATURES = 2**17  # buckets of the hashed words
FITTED = 20_000  # captions that the rarity of words and the SVD are computed from
CHUNK = 16_384

Vectors = NDArray[np.float32]


def missing(place: str, config: EmbeddingConfig) -> list[str]:
    """What this machine lacks, but for the weights of an encoder."""
    if isinstance(config, EncoderEmbedding) or importlib.util.find_spec("sklearn"):
        return []
    return [f"{place}: the package scikit-learn is not installed: pip install -e '.[captions]'"]


def embed(captions: Sequence[str], config: EmbeddingConfig, seed: int, device: str) -> Vectors:
    """(N, D), each row of length one; a caption without a known word is nought."""
    match config:
        case HashedEmbedding():
            return _hashed(captions, config.dimensions, seed)
        case EncoderEmbedding():
            return _encoded(captions, config, device)
        case _:
            assert_never(config)


def _hashed(captions: Sequence[str], dimensions: int, seed: int) -> Vectors:
    """Latent semantic analysis (Deerwester et al., 1990) over hashed words and pairs of words."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    hashing = HashingVectorizer(
        n_features=FEATURES, ngram_range=(1, 2), stop_words="english", alternate_sign=False
    )
    places = np.linspace(0, len(captions) - 1, min(len(captions), FITTED)).astype(int)
    some = hashing.transform([captions[int(place)] for place in places])
    rarity = TfidfTransformer(sublinear_tf=True).fit(some)
    weighted = rarity.transform(some)
    rank = max(1, min(dimensions, weighted.shape[0] - 1))
    reduction = TruncatedSVD(rank, random_state=seed).fit(weighted)
    blocks = [
        reduction.transform(rarity.transform(hashing.transform(chunk))).astype(np.float32)
        for chunk in _chunks(captions, CHUNK)
    ]
    return normalised(np.concatenate(blocks))


def _encoded(captions: Sequence[str], config: EncoderEmbedding, device: str) -> Vectors:
    import torch

    tokenizer, encoder = _encoder(config.model, config.revision, device)
    blocks = []
    for chunk in _chunks(captions, config.batch_size):
        tokens = tokenizer(
            chunk,
            padding=True,
            truncation=True,
            max_length=config.max_tokens,
            return_tensors="pt",
        ).to(device)
        inputs = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        with torch.inference_mode():
            states = encoder(**inputs).last_hidden_state  # (N, L, D)
        keep = inputs["attention_mask"][..., None]
        mean = (states * keep).sum(1) / keep.sum(1).clamp(min=1)
        blocks.append(mean.float().cpu().numpy())
    return normalised(np.concatenate(blocks))


@lru_cache(maxsize=1)
def _encoder(model: str, revision: str | None, device: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel

    kind = AutoConfig.from_pretrained(model, revision=revision).model_type
    loader = T5EncoderModel if kind == "t5" else AutoModel
    tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
    encoder = loader.from_pretrained(model, revision=revision, use_safetensors=True)
    return tokenizer, encoder.eval().to(device)


def _chunks(captions: Sequence[str], size: int) -> Iterable[list[str]]:
    chunk: list[str] = []
    for caption in captions:
        chunk.append(caption)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def normalised(vectors: NDArray[np.floating[Any]]) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
