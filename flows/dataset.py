"""The data: captions, the teacher's pictures, the judge's verdicts, the student's features.

In:    a run and overrides; the manifests of the stages before, or none.
Out:   each stage's manifest and timing (`flows.stages.Handed`).
Rerun: makes the missing shards only. `force` asks for every shard again: whole ones are kept
       after their checksum was compared, damaged ones are made anew.
"""

from typing import Any

from prefect import State, flow

from flows.handed import Handed
from flows.stages import make_tables, run_name, run_stage
from pipeline import captions as captions_stage
from pipeline import features as features_stage
from pipeline import images as images_stage
from pipeline import verdicts as verdicts_stage

Overrides = dict[str, Any] | None
Above = dict[str, Handed] | None


@flow(name="captions", flow_run_name=run_name, log_prints=True)
def captions(
    run: str, overrides: Overrides = None, force: bool = False, upstream: Above = None
) -> State[Handed]:
    """Harvest, normalise and deduplicate the captions of a run."""
    return run_stage(captions_stage, make_tables, run, overrides, upstream, force)


@flow(name="images", flow_run_name=run_name, log_prints=True)
def images(
    run: str, overrides: Overrides = None, force: bool = False, upstream: Above = None
) -> State[Handed]:
    """Let the teacher draw every caption."""
    return run_stage(images_stage, make_tables, run, overrides, upstream, force)


@flow(name="verdicts", flow_run_name=run_name, log_prints=True)
def verdicts(
    run: str, overrides: Overrides = None, force: bool = False, upstream: Above = None
) -> State[Handed]:
    """Let the judge score every picture; thresholds come later."""
    return run_stage(verdicts_stage, make_tables, run, overrides, upstream, force)


@flow(name="features", flow_run_name=run_name, log_prints=True)
def features(
    run: str, overrides: Overrides = None, force: bool = False, upstream: Above = None
) -> State[Handed]:
    """Encode accepted pictures and their captions, so that training loads neither VAE nor T5."""
    return run_stage(features_stage, make_tables, run, overrides, upstream, force)
