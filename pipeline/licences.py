"""Which licences apply to a run, stage by stage: of captions, teacher, judge, encoders, evaluators.

In:    a `RunConfig`.
Out:   `Licence`s with the cautions that are known; a model whose terms are not known here is said
       to be so.
Rerun: a pure function.
"""

from pipeline import known_models
from pipeline.config import ClipJudgeConfig, QwenJudge, RunConfig, ShapesCaptions
from pipeline.known_models import Licence


def licences(config: RunConfig, stage: str) -> tuple[Licence, ...]:
    """Terms of what a stage reads and runs; a model that several use stands at each."""
    match stage:
        case "captions":
            return tuple(
                Licence(s.name, "MIT" if isinstance(s, ShapesCaptions) else s.licence)
                for s in config.captions.active
            )
        case "images" if config.images:
            return (known_models.teacher_licence(config.images.teacher),)
        case "verdicts" if config.verdicts:
            return _judges_licence(config)
        case "features" if config.features:
            values = config.features
            encoders = (values.autoencoder, values.text_encoder, values.alignment_encoder)
            return tuple(known_models.licence_of(place) for place in encoders if place)
        case "evaluate" if config.evaluation:
            used = tuple(
                place
                for evaluator in config.evaluation.evaluators
                for name in ("detector", "clip")
                if isinstance(place := getattr(evaluator, name, None), str)
            )
            return tuple(known_models.licence_of(place) for place in used)
    return ()


def _judges_licence(config: RunConfig) -> tuple[Licence, ...]:
    assert config.verdicts is not None
    judge = config.verdicts.judge
    if isinstance(judge, QwenJudge):
        return (known_models.licence_of(judge.model),)
    if isinstance(judge, ClipJudgeConfig):
        return (known_models.licence_of(judge.weights),)
    return (Licence("shapes detector", "MIT"),)
