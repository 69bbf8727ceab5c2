"""How many rows each stage is thought to have, before any of them is made.

In:    a `RunConfig`, and what is known of it already: counts of stages that are made.
Out:   `Expected`; a number that nothing tells is None with a sentence that says so, never a guess.
Rerun: a pure function.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import rounds
from pipeline.config import (
    CaptionsConfig,
    EvaluatorConfig,
    GenEvalEvaluator,
    RunConfig,
    ShapesCaptions,
    ShapesEvaluator,
    ShapesTeacher,
)
from pipeline.rates import OURS

TASKS = 6  # of GenEval, and of the shapes that stand for it
GENEVAL_PROMPTS = 553  # of the published file (evaluation.md)
# What a stage keeps of its rows, where the run says nothing.
SHAPES_CAPTIONS, CAPTIONS, DRAWN, JUDGED, COMPARED = 0.70, 0.95, 1.0, 0.80, 0.85


@dataclass(frozen=True)
class Counted:
    """What a stage that is made says of itself."""

    rows_in: int
    kept: int

    @property
    def share(self) -> float:
        return self.kept / self.rows_in if self.rows_in else 1.0


@dataclass(frozen=True)
class Expected:
    """Rows by stage. Pictures by size; `at_most`: captions may be fewer than stands here."""

    captions: int | None = None
    kept_captions: int | None = None
    pictures: Mapping[int, float] | None = field(default_factory=dict)  # asked for at each size
    drawn: Mapping[int, float] | None = field(default_factory=dict)
    accepted: Mapping[int, float] | None = field(default_factory=dict)  # by the thresholds
    texts: float | None = None  # captions with an accepted picture
    samples: int = 0  # the student's, for preferences
    comparisons: int = 0
    pairs: float = 0
    scored: int | None = 0  # pictures of the evaluators
    at_most: bool = False
    unknown: tuple[str, ...] = ()  # sentences
    shares: Mapping[str, str] = field(default_factory=dict)  # stage -> share kept and its source


def expected(config: RunConfig, made: Mapping[str, Counted] | None = None) -> Expected:
    """The rows of every stage that the run has; `made` counts replace what would be reckoned."""
    made = made or {}
    shares = {stage: share(config, stage, made) for stage in ("captions", "images", "verdicts")}
    rows, unknown = caption_rows(config)
    if "captions" in made:
        rows, unknown = made["captions"].rows_in, ()
    kept, at_most = _kept(config.captions, rows, made.get("captions"), shares["captions"][0])
    if kept is not None:
        pictures = _pictures(config, kept)
        drawn = {size: n * shares["images"][0] for size, n in pictures.items()}
        # A judge that is done has counted those that were not drawn, too.
        judged = pictures if "verdicts" in made else drawn
        accepted = {size: n * shares["verdicts"][0] for size, n in judged.items()}
        texts = _texts(config, kept, shares["images"][0] * shares["verdicts"][0])
    else:
        pictures = drawn = accepted = texts = None  # type: ignore[assignment]
    compared, paired = _comparisons(config, texts), share(config, "preferences", made)
    scored, unscored = _scored(config)
    return Expected(
        captions=rows,
        kept_captions=kept,
        pictures=pictures,
        drawn=drawn,
        accepted=accepted,
        texts=texts,
        samples=_samples(config, texts),
        comparisons=compared,
        pairs=compared * paired[0],
        scored=scored,
        at_most=at_most,
        unknown=(*unknown, *unscored),
        shares={stage: f"{s:.0%} kept, {source}" for stage, (s, source) in shares.items()}
        | {"preferences": f"{paired[0]:.0%} kept, {paired[1]}"},
    )


def share(config: RunConfig, stage: str, made: Mapping[str, Counted]) -> tuple[float, str]:
    """The share of its rows that a stage keeps, and where the figure comes from."""
    if stage in made:
        return made[stage].share, "counted in its table"
    given: float | None = getattr(config.plan.kept, stage)
    if given is not None:
        return given, "stated in plan.kept"
    teacher = config.images.teacher if config.images else None
    match stage:
        case "captions" if all(isinstance(s, ShapesCaptions) for s in config.captions.active):
            return SHAPES_CAPTIONS, "measured: the tiny run, whose grammar repeats itself"
        case "captions":
            return CAPTIONS, OURS
        case "images":
            return DRAWN, "all, until a teacher says otherwise"
        case "verdicts" if isinstance(teacher, ShapesTeacher):
            return 1 - teacher.error_rate, "counted: images.teacher.error_rate"
        case "verdicts":
            return JUDGED, OURS
        case _:
            return COMPARED, "measured: three tiny runs, 74 to 98 %"


def caption_rows(config: RunConfig) -> tuple[int | None, tuple[str, ...]]:
    """Rows of all active sources, or None and a sentence for each that nothing is known of."""
    stated, known = config.plan.source_rows, 0
    unknown: list[str] = []
    names = {source.name for source in config.captions.sources}
    for name in stated:
        if name not in names:
            raise ValueError(
                f"plan.source_rows.{name}: no caption source has this name; "
                f"the sources are {sorted(names)}"
            )
    for source in config.captions.active:
        if source.name in stated:
            known += stated[source.name]
        elif isinstance(source, ShapesCaptions):
            known += source.num_captions
        else:
            unknown.append(source.name)
    if not unknown:
        return known, ()
    names_of = ", ".join(unknown)
    sentence = f"captions: the rows of {names_of} are counted when they are read, not before"
    return None, (f"{sentence}; plan.source_rows states them",)


def _kept(
    captions: CaptionsConfig, rows: int | None, made: Counted | None, part: float
) -> tuple[int | None, bool]:
    """Captions kept, and whether that is only the most that may be."""
    most = captions.selection.num_captions if captions.selection else None
    if made:
        return made.kept, False
    if rows is None:
        return most, most is not None
    kept = round(rows * part)
    return (kept if most is None else min(kept, most)), False


def _pictures(config: RunConfig, captions: int) -> dict[int, float]:
    images = config.images
    if images is None:
        return {}
    return {
        size: float(min(captions, images.max_captions.get(size, captions)))
        * images.seeds_per_caption
        for size in images.image_sizes
    }


def _texts(config: RunConfig, captions: int, accepted: float) -> float:
    """Captions of which at least one picture is accepted, as if pictures were kept by chance."""
    images = config.images
    if images is None:
        return 0.0
    most = max(min(captions, images.max_captions.get(s, captions)) for s in images.image_sizes)
    return most * (1 - (1 - accepted) ** images.seeds_per_caption)


def encoded(config: RunConfig, drawn: Mapping[int, float], size: int) -> float:
    """Pictures that features of this size are made of: the smallest drawn that is not smaller."""
    large = [each for each in drawn if each >= size]
    return drawn[min(large)] if large else 0.0


def _samples(config: RunConfig, texts: float | None) -> int:
    values = config.preferences
    if values is None:
        return 0
    return values.samples_per_caption * _subjects(config, texts) * rounds.count(config)


def _comparisons(config: RunConfig, texts: float | None) -> int:
    values = config.preferences
    if values is None:
        return 0
    # The teacher's picture is compared with each sample; otherwise a caption is one comparison.
    each = {"teacher_over_student": values.samples_per_caption}
    a_caption = sum(each.get(kind, 1) for kind in values.pairs)
    return _subjects(config, texts) * a_caption * rounds.count(config)


def _subjects(config: RunConfig, texts: float | None) -> int:
    assert config.preferences is not None
    most = config.preferences.num_captions
    return most if texts is None else min(most, round(texts))


def _scored(config: RunConfig) -> tuple[int | None, tuple[str, ...]]:
    """Pictures that all checkpoints draw for all evaluators."""
    if config.evaluation is None:
        return 0, ()
    # untrained, student, and the aligned one of every round
    checkpoints = 2 + (rounds.count(config) if config.dpo else 0)
    total = 0
    for evaluator in config.evaluation.evaluators:
        prompts = prompts_of(evaluator)
        if prompts is None:
            return None, (f"evaluate: how many prompts {evaluator.kind} has is not known here",)
        total += prompts * evaluator.images_per_prompt * checkpoints
    return total, ()


def prompts_of(evaluator: EvaluatorConfig) -> int | None:
    match evaluator:
        case ShapesEvaluator():
            return TASKS * evaluator.prompts_per_task
        case GenEvalEvaluator():
            path = Path(evaluator.prompts)
            if not path.is_file():
                return GENEVAL_PROMPTS
            return sum(1 for line in path.read_text("utf-8").splitlines() if line.strip())
    return None
