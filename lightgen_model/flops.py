"""How much work a picture is in training, from the values of a student alone.

In:    a `ModelConfig`, the number of tokens, the mean share of them that is masked.
Out:   floating-point operations; a multiply and an add are two. Norms, activations and softmax are
       left out, as is usual.

Letters: N tokens, V visible, M masked, L text tokens, C width, R rows of the head. Source:
lightgen.md 3.3 and 3.4, with cross blocks and head on masked tokens alone, as `model.py` has them.
"""

from lightgen_model.config import ModelConfig
from lightgen_model.head import TIME_FEATURES


def forward_flops(
    config: ModelConfig, num_tokens: int, mask_ratio: float, text_length: int | None = None
) -> dict[str, float]:
    """One forward pass a picture, by part."""
    length = config.text_length if text_length is None else text_length
    width, masked = config.width, num_tokens * mask_ratio
    visible = num_tokens - masked
    into = 2 * width * width  # a square linear, a token
    mlp = 2 * config.mlp_ratio * into
    cross = masked * (2 * into + mlp) + length * 2 * into + 4 * masked * length * width

    condition = 2 * width * config.head.width
    modulating = modulation_flops(config)

    def block(tokens: float) -> float:
        return tokens * (4 * into + mlp) + 4 * tokens**2 * width

    return {
        "encoder": visible * 2 * config.token_dim * width + config.encoder_depth * block(visible),
        "decoder": visible * into + config.decoder_depth * block(num_tokens),
        "text": length * (2 * config.text_width * width + into)
        + config.aligner_depth * block(length),
        "cross": masked * into + config.cross_depth * cross,
        # The condition is embedded once a token, and what modulates is made once a time.
        "head": masked
        * (
            condition
            + config.head.times_per_token * (modulating - condition)
            + config.head.batch_multiplier * (head_flops(config) - modulating)
        ),
    }


def head_flops(config: ModelConfig) -> float:
    """The head on one token and time."""
    width, dim = config.head.width, config.token_dim
    square = 2 * width * width
    out = 2 * dim if config.head.kind == "ddpm" else dim
    return modulation_flops(config) + 2 * width * (dim + out) + config.head.depth * 2 * square


def modulation_flops(config: ModelConfig) -> float:
    """The part of the head that knows time and condition alone: embeddings and modulations."""
    width = config.head.width
    embeddings = 2 * (config.width + TIME_FEATURES + width) * width
    return embeddings + (config.head.depth * 3 + 2) * 2 * width * width


def training_flops(
    config: ModelConfig, num_tokens: int, mask_ratio: float, text_length: int | None = None
) -> float:
    """Forward and backward pass a picture: the backward is two forwards. Recomputation is no work
    in this sense, so that MFU tells of what is learned and not of what is repeated."""
    return 3 * sum(forward_flops(config, num_tokens, mask_ratio, text_length).values())
