"""What each stage does, piece by piece, and how long one device takes for it.

In:    a `RunConfig` and the rows that its stages are expected to have.
Out:   `Effort`s by stage.
Rerun: a pure function.

The student's own work is counted from its values (`lightgen_model/flops.py`); that of other models
by name (`pipeline/known_models.py`). A training whose activations are recomputed does a fourth
forward pass: it is paid for, so it is work here.
"""

from collections.abc import Mapping

from lightgen_model.flops import forward_flops, sampling_flops
from lightgen_model.unmasking import expected_ratio
from pipeline import known_models, rounds
from pipeline.checkpoints import CURVE_PROMPTS
from pipeline.config import EvaluationConfig, RunConfig, SamplingConfig, TrainingPhase
from pipeline.expected import TASKS, Expected, encoded, prompts_of
from pipeline.storage import Means
from pipeline.work import Effort, effort_of


def efforts(config: RunConfig, rows: Expected) -> dict[str, tuple[Effort, ...]]:
    """By stage, of the stages that the run has."""
    screened = effort_of(config, "screened", "screen", rows.captions)
    found: dict[str, tuple[Effort, ...]] = {"captions": (screened,)}
    if config.images:
        found["images"] = _drawing(config, rows)
    if config.verdicts:
        found["verdicts"] = (_judging(config, _total(rows.pictures)),)
    if config.features:
        found["features"] = _encoding(config, rows)
    if config.student:
        found["student"] = _training(config)
    if config.preferences:
        found["preferences"] = _comparing(config, rows)
    if config.dpo:
        found["dpo"] = _aligning(config)
    if config.evaluation:
        found["evaluate"] = _measuring(config, rows)
    return found


def _total(by_size: Mapping[int, float] | None) -> float | None:
    return None if by_size is None else sum(by_size.values())


# --- the data -------------------------------------------------------------------------------------


def _drawing(config: RunConfig, rows: Expected) -> tuple[Effort, ...]:
    assert config.images is not None
    teacher = config.images.teacher
    return tuple(
        effort_of(
            config,
            f"drawn at {size} px",
            "draw",
            None if rows.pictures is None else rows.pictures[size],
            known_models.teacher_tflop(teacher, size),
            size,
        )
        for size in config.images.image_sizes
    )


def _judging(config: RunConfig, pictures: float | None) -> Effort:
    assert config.verdicts is not None
    tflop = known_models.judge_tflop(config.verdicts.judge)
    return effort_of(config, "judged", "judge", pictures, tflop)


def _encoding(config: RunConfig, rows: Expected) -> tuple[Effort, ...]:
    values = config.features
    assert values is not None
    # Beside others of about its length a caption carries next to no padding.
    tokens = Means().caption_tokens(config) if values.text_padding == "longest" else None
    tflop = known_models.text_tflop(values, tokens)
    found = [effort_of(config, "captions encoded", "text", rows.texts, tflop)]
    for size in values.image_sizes:
        number = None if rows.accepted is None else encoded(config, rows.accepted, size)
        tflop = known_models.encode_tflop(values, size)
        found.append(effort_of(config, f"encoded at {size} px", "latents", number, tflop, size))
        if values.alignment_encoder and config.student:
            patches = config.student.model.grid(size) ** 2
            tflop = known_models.vision_tflop(values.alignment_encoder, patches)
            what = f"seen by the vision model at {size} px"
            found.append(effort_of(config, what, "latents", number, tflop, size))
    return tuple(found)


# --- the student ----------------------------------------------------------------------------------


def forward_tflop(config: RunConfig, size: int) -> float:
    """One forward pass of the student on a picture, masked as in training."""
    assert config.student is not None
    model, masking = config.student.model, config.student.masking
    ratio = expected_ratio(masking.distribution, masking.min_ratio)
    return sum(forward_flops(model, model.grid(size) ** 2, ratio).values()) / 1e12


def sample_tflop(config: RunConfig, size: int, sampling: SamplingConfig) -> float:
    assert config.student is not None
    tokens = config.student.model.grid(size) ** 2
    iterations = min(tokens, sampling.num_iterations)  # as a look at the student does
    fitting = sampling.model_copy(update={"num_iterations": iterations})
    return sampling_flops(config.student.model, tokens, fitting) / 1e12


def _training(config: RunConfig) -> tuple[Effort, ...]:
    values = config.student
    assert values is not None
    passes = 4 if values.checkpoint_activations else 3  # forward, backward; recomputed
    found = []
    for index, phase in enumerate(values.trained):
        seen, work = (
            phase.steps * phase.batch_size,
            passes * forward_tflop(config, phase.image_size),
        )
        found.append(effort_of(config, f"seen at {phase.image_size} px", "train", seen, work))
        if config.evaluation:
            found.append(_looking(config, config.evaluation, index, phase))
    return tuple(found)


def _looking(
    config: RunConfig, evaluation: EvaluationConfig, index: int, phase: TrainingPhase
) -> Effort:
    """Pictures of the learning curve: at the start, every so many steps, at a phase's end."""
    assert config.student is not None
    looks = -(-phase.steps // config.student.sample_every) + (index == 0)
    prompts = prompts_of(evaluation.evaluators[0])
    shown = None if prompts is None else looks * min(prompts, TASKS * CURVE_PROMPTS)
    tflop = sample_tflop(config, phase.image_size, evaluation.sampling)
    return effort_of(config, f"looked at, {phase.image_size} px", "sample", shown, tflop)


def _comparing(config: RunConfig, rows: Expected) -> tuple[Effort, ...]:
    values, features = config.preferences, config.features
    assert values is not None and features is not None
    size = values.image_size
    encode = known_models.encode_tflop(features, size)
    return (
        *_drawn(config, rows.samples, size, values.sampling),
        effort_of(config, "encoded again", "latents", rows.samples, encode, size),
        _judging(config, rows.samples),
    )


def _drawn(
    config: RunConfig, pictures: int | None, size: int, sampling: SamplingConfig
) -> tuple[Effort, ...]:
    """Pictures of the student, from words to pixels."""
    assert config.features is not None
    features = config.features
    text, pixels = known_models.text_tflop(features), known_models.decode_tflop(features, size)
    work = sample_tflop(config, size, sampling)
    return (
        effort_of(config, "captions encoded", "text", pictures, text),
        effort_of(config, f"sampled at {size} px", "sample", pictures, work),
        effort_of(config, "decoded", "decode", pictures, pixels, size),
    )


def _aligning(config: RunConfig) -> tuple[Effort, ...]:
    assert config.dpo is not None and config.preferences is not None
    # Winner and loser each: the policy's passes, and one forward pass of the reference.
    passes = 2 * (5 if config.dpo.checkpoint_activations else 4)
    work = passes * forward_tflop(config, config.preferences.image_size)
    pairs = config.dpo.steps * config.dpo.batch_size * rounds.count(config)
    return (effort_of(config, "pairs", "align", pairs, work),)


def _measuring(config: RunConfig, rows: Expected) -> tuple[Effort, ...]:
    values = config.evaluation
    assert values is not None
    return (
        *_drawn(config, rows.scored, values.image_size, values.sampling),
        effort_of(config, "scored", "score", rows.scored),
    )
