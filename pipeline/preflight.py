"""What a machine lacks for a run, found before any work is done and told all at once.

In:    a `RunConfig` and the stages about to run.
Out:   nothing, or one `ValueError` with a sentence for each thing missing and how to get it.
Rerun: looks again; nothing is kept. No model library is loaded to find out.
"""

import logging
import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pipeline import captions, evaluators, judges, plugins, teachers
from pipeline.addresses import unreachable
from pipeline.config import (
    CaptionsConfig,
    EncoderEmbedding,
    FeaturesConfig,
    LoopConfig,
    RunConfig,
)
from pipeline.disk import DiskRefused, free_bytes
from pipeline.encoder_configs import hub_cache, misfits, snapshot_of
from pipeline.fidelity import table as fidelity
from pipeline.roots import near, root_of, unusable

# The section of a run's values that each stage reads, in the order of the data.
SECTIONS = {
    "captions": "captions",
    "images": "images",
    "verdicts": "verdicts",
    "features": "features",
    "student": "student",
    "preferences": "preferences",
    "dpo": "dpo",
    "evaluate": "evaluation",
}
ON_DEVICE = ("images", "features", "student", "preferences", "dpo", "evaluate")
MIN_FREE_GIB = 2

logger = logging.getLogger(__name__)


def sections_up_to(stage: str) -> list[str]:
    """The stage's own section of values and those before it."""
    sections = list(SECTIONS.values())
    return sections[: sections.index(SECTIONS[stage]) + 1]


def configured(config: RunConfig, stage: str) -> bool:
    return getattr(config, SECTIONS[stage]) is not None


def require(config: RunConfig, stage: str) -> None:
    if not configured(config, stage):
        there = [name for name in SECTIONS if configured(config, name)]
        raise ValueError(f"run {config.name!r} has no {stage}: it ends with {there[-1]}")


def check(config: RunConfig, stages: Sequence[str]) -> None:
    """Stop here, before any work, when this machine cannot do these stages; tell cautions first."""
    for caution in cautions(config, stages):
        logger.warning("caution: %s", caution)
    lacking = missing(config, stages) + _unreachable_cluster(config, stages)
    if lacking:
        lines = "\n".join(f"  {number}. {line}" for number, line in enumerate(lacking, 1))
        raise ValueError(f"run {config.name!r} cannot start on this machine:\n{lines}")


def check_root(config: RunConfig) -> None:
    """DiskRefused where nothing can be written, also for a run that would make nothing."""
    if why := unusable(root_of(config.root)):
        raise DiskRefused(
            f"root: {config.root} cannot be written ({why}): make it writable, or give the run "
            "another root, and run the same command again"
        )


def cautions(config: RunConfig, stages: Sequence[str]) -> list[str]:
    """What a person should know before these stages cost anything."""
    return captions.cautions(config.captions) if "captions" in stages else []


def missing(config: RunConfig, stages: Sequence[str]) -> list[str]:
    """One sentence for each thing that is not there."""
    lacking = []
    lacking += _missing_engine(config, stages)
    here = [stage for stage in stages if stage in ON_DEVICE and not on_cluster(config, stage)]
    if config.device == "cuda" and here and not has_gpu():
        lacking.append(
            "device: the run asks for cuda and no NVIDIA GPU is visible (nvidia-smi lists none). "
            "Use a machine with one, or try the same flows on a CPU: "
            "prefect deployment run distill/tiny"
        )
    if "captions" in stages:
        lacking += captions.missing(config) + _missing_caption_encoders(config.captions)
    if "images" in stages and config.images:
        lacking += teachers.missing(config.images.teacher, config.images.accept_licence)
    if "verdicts" in stages and config.verdicts:
        lacking += judges.missing(config.verdicts.judge)
        if config.verdicts.clip:
            lacking += judges.missing(config.verdicts.clip, "verdicts.clip")
    lacking += _missing_scorer(config, stages)
    start = config.student.start if config.student and "student" in stages else None
    if start and not (Path(start) / "config.json").is_file():
        lacking.append(f"student.start: {start} is no checkpoint folder")
    if {"features", "preferences", "evaluate"} & set(stages) and config.features:
        lacking += _missing_encoders(config.features)
    if "features" in stages and config.features:
        lacking += misfits(config.features, config.student.model if config.student else None)
    if "evaluate" in stages and config.evaluation:
        for evaluator in config.evaluation.evaluators:
            lacking += evaluators.missing(evaluator)
        if config.evaluation.fidelity:
            lacking += fidelity.missing(config.evaluation.fidelity)
    free = free_bytes(near(root_of(config.root))) / 2**30
    if free < MIN_FREE_GIB:
        lacking.append(f"disk: {free:.1f} GiB free at {config.root}, {MIN_FREE_GIB} GiB needed")
    return lacking


def on_cluster(config: RunConfig, stage: str) -> bool:
    """Is this stage made on the nodes of a Ray cluster, and not in the flow or beside it?"""
    if stage in ("student", "dpo"):
        loop: LoopConfig | None = getattr(config, stage)
        return loop is not None and loop.launcher == "ray"
    # Captions are one pass over their sources.
    return config.engine.task_runner == "ray" and stage != "captions"


def seen_here(config: RunConfig) -> RunConfig:
    """To look at what nodes made: a flow whose machine has no GPU looks with its CPU."""
    on_nodes = any(on_cluster(config, stage) for stage in ON_DEVICE if configured(config, stage))
    if config.device == "cpu" or not on_nodes or has_gpu():
        return config
    return config.model_copy(update={"device": "cpu"})


def _missing_engine(config: RunConfig, stages: Sequence[str]) -> list[str]:
    asked = [stage for stage in stages if on_cluster(config, stage)]
    lacking = [package for package in ("ray", "prefect_ray") if find_spec(package) is None]
    if not asked or not lacking:
        return []
    return [
        f"engine: {', '.join(asked)} on a Ray cluster need the extra 'ray' ({', '.join(lacking)} "
        'cannot be imported): pip install -e ".[ray]"'
    ]


def _unreachable_cluster(config: RunConfig, stages: Sequence[str]) -> list[str]:
    """Asked where the flow runs; a node is there already."""
    if not any(on_cluster(config, stage) for stage in stages):
        return []
    said = unreachable(config.engine.ray.address)
    return [said] if said else []


def _missing_scorer(config: RunConfig, stages: Sequence[str]) -> list[str]:
    """What the judge of the student's own pictures lacks, where verdicts did not say it already."""
    asked = "preferences" in stages or (
        "dpo" in stages and config.dpo is not None and config.dpo.watch_every > 0
    )
    scorer = config.preferences.scorer if config.preferences else None
    if asked and scorer:
        return judges.missing(scorer.judge)
    if asked and config.verdicts and "verdicts" not in stages:
        return judges.missing(config.verdicts.judge)
    return []


def has_gpu() -> bool:
    """Asks the driver, not torch: importing torch costs seconds."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    answer = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    return "GPU" in answer.stdout


def _missing_caption_encoders(config: CaptionsConfig) -> list[str]:
    """Weights that the captions' embeddings need, where they are an encoder's."""
    sentences = []
    for place, values in (("selection", config.selection), ("diversity", config.diversity)):
        if values and isinstance(values.embedding, EncoderEmbedding):
            model, revision = values.embedding.model, values.embedding.revision
            sentences.append(missing_weights(f"captions.{place}.embedding.model", model, revision))
    return [sentence for sentence in sentences if sentence]


def _missing_encoders(features: FeaturesConfig) -> list[str]:
    wanted = {
        "features.autoencoder": (features.autoencoder, features.autoencoder_revision),
        "features.text_encoder": (features.text_encoder, features.text_encoder_revision),
    }
    if features.alignment_encoder:
        wanted["features.alignment_encoder"] = (
            features.alignment_encoder,
            features.alignment_encoder_revision,
        )
    return [
        sentence
        for place, (repository, revision) in wanted.items()
        if (sentence := missing_weights(place, repository, revision))
    ]


def missing_weights(place: str, repository: str, revision: str | None) -> str:
    """Empty when `repository` is a folder here or a snapshot in the hub's cache."""
    if Path(repository).is_dir():
        return ""
    if plugins.is_plugin(repository):
        return plugins.missing(repository, place)
    if repository.startswith((".", "/", "infra/", "artifacts/")) or repository.count("/") != 1:
        return f"{place}: the folder {repository} is not there"
    if snapshot_of(repository, revision):
        return ""
    pin = f" --revision {revision}" if revision else ""
    return (
        f"{place}: the weights of {repository} are not in the hub cache ({hub_cache()}). "
        f"Get them with: hf download {repository}{pin}"
    )
