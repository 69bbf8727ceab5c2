"""How much work a picture is, in training and when it is drawn, and how large a student is: from
its values alone.

In:    a `ModelConfig`, the number of tokens; the mean share of them that is masked, or how a
       picture is drawn.
Out:   floating-point operations; a multiply and an add are two. Norms, activations and softmax are
       left out, as is usual. No torch is loaded.

Letters: N tokens, V visible, M masked, L text tokens, C width, R rows of the head. Source:
lightgen.md 3.3 and 3.4, with cross blocks and head on masked tokens alone, as `model.py` has them.
"""

from itertools import pairwise

from lightgen_model.config import TIME_FEATURES, ModelConfig, SamplingConfig
from lightgen_model.unmasking import tokens_left


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


# --- drawing --------------------------------------------------------------------------------------


def sampling_flops(
    config: ModelConfig, num_tokens: int, sampling: SamplingConfig, text_length: int | None = None
) -> float:
    """One picture of `num_tokens` drawn as `sampling` says, as `sampling.py` draws it."""
    length = config.text_length if text_length is None else text_length
    width, depth = config.width, config.cross_depth
    sides = 1 if sampling.guidance == 1 else 2  # with text, and under guidance without
    into = 2 * width * width
    mlp = 2 * config.mlp_ratio * into
    text = forward_flops(config, num_tokens, 1.0, length)["text"]
    text += depth * 2 * into * (length + sides - 1)  # keys and values, once a picture
    total, left = text, tokens_left(num_tokens, sampling.num_iterations)
    for iteration, (before, after) in enumerate(pairwise([num_tokens, *left])):
        seen = forward_flops(config, num_tokens, before / num_tokens, 0)
        now = before - after
        total += seen["encoder"] + seen["decoder"]
        total += now * (into + depth * (2 * into + mlp)) + depth * 4 * now * length * width
        # The null text is one key, which all tokens read alike: no query, one projection.
        total += (sides - 1) * (now * (into + depth * mlp) + depth * into)
        total += sides * now * _head_draws(config, sampling, iteration)
    return total


def _head_draws(config: ModelConfig, sampling: SamplingConfig, iteration: int) -> float:
    """The head on one token and condition through all its steps."""
    steps, condition = sampling.head_steps_at(iteration), 2 * config.width * config.head.width
    calls = 2 * steps - 1 if sampling.solver_of(config.head) == "heun" else steps
    modulations = (3 * config.head.depth + 2) * 2 * config.head.width**2
    # The condition is embedded once, times once a batch: what is left of them is little.
    return condition + steps * modulations + calls * (head_flops(config) - modulation_flops(config))


# --- size -----------------------------------------------------------------------------------------


def parameter_count(config: ModelConfig) -> int:
    """Weights and biases of `LightGen(config)`."""
    width, tokens = config.width, config.grid(config.base_image_size) ** 2
    hidden, norm = int(config.mlp_ratio * width), 2 * width
    head_norms = 2 * (width // config.num_heads) if config.qk_norm else 0
    mlp = _linear(width, hidden) + _linear(hidden, width)
    attention = 4 * _linear(width, width) + head_norms
    block = attention + mlp + 2 * norm
    blocks = config.encoder_depth + config.decoder_depth + config.aligner_depth
    cross = config.cross_depth * (block + norm)  # queries and keys have a norm each
    inputs = _linear(config.token_dim, width) + norm + _linear(config.text_width, width)
    # Into decoder, aligner and cross blocks; a norm after each stack; three tables; two vectors.
    between = 3 * _linear(width, width) + 4 * norm + 3 * tokens * width + 2 * width
    repa = 0
    if config.repa:
        to, through = config.repa.width, config.repa.hidden
        repa = _linear(width, through) + _linear(through, through) + _linear(through, to)
    return blocks * block + cross + inputs + between + _head_parameters(config) + repa


def _head_parameters(config: ModelConfig) -> int:
    width, dim = config.head.width, config.token_dim
    out = 2 * dim if config.head.kind == "ddpm" else dim
    embeddings = _linear(TIME_FEATURES, width) + _linear(width, width)
    embeddings += _linear(config.width, width) + _linear(dim, width)
    block = 2 * width + 2 * _linear(width, width) + _linear(width, 3 * width)
    return embeddings + config.head.depth * block + _linear(width, 2 * width) + _linear(width, out)


def _linear(into: int, out: int) -> int:
    return into * out + out
