"""What of a run is made already, stage by stage, found without making anything.

In:    a run and what lies in its root.
Out:   `There` by stage: the manifest of a whole stage, else how much of it is there.
Rerun: looks again. Of a stage whose upstream is not whole nothing is told: which of its shards will
       be used is known once that is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import alignment, captions, preflight, rounds, student
from pipeline.config import RunConfig
from pipeline.description import RECORD, Description, description_folder
from pipeline.expected import Counted
from pipeline.roots import root_of
from pipeline.spending import spent_on
from pipeline.tables import Manifest
from pipeline.upstream import STAGES, steps

TRAININGS = (student.STAGE, alignment.STAGE)


@dataclass(frozen=True)
class There:
    """Of one stage."""

    manifest: Manifest | None = None  # None: not whole
    rows: int = 0  # made already; of a training, steps
    of: int = 0  # all that there will be; 0: not known before its upstream is made
    phases: tuple[float, ...] = ()  # of a training, the share done of each phase
    counted: Counted | None = None
    spent: float | None = None  # device-seconds on the part that is there, where written down

    @property
    def whole(self) -> bool:
        return self.manifest is not None

    @property
    def share(self) -> float:
        if self.whole:
            return 1.0
        return self.rows / self.of if self.of else 0.0


def already(config: RunConfig) -> dict[str, There]:
    """Every stage that the run has."""
    stages = [stage for stage in STAGES if preflight.configured(config, stage.STAGE)]
    found = {stage.STAGE: There() for stage in stages}
    if captions.missing(config):  # a source that is not here cannot say what was made of it
        return found
    upstream: dict[str, Manifest] = {}
    for name, stage, number in steps(config):
        if stage.STAGE not in found:
            continue
        own, seen = config, upstream
        if number:
            own, seen = rounds.at(config, number), rounds.seen_by(upstream, number)
        manifest = stage.find(own, seen)
        if manifest is None:
            if number < 2:
                found[stage.STAGE] = _partly(own, stage, seen)
            break
        upstream[name] = manifest
        found[stage.STAGE] = _whole(own, stage.STAGE, manifest)
    return found | _of_rounds(config, upstream)


def _of_rounds(config: RunConfig, upstream: Mapping[str, Manifest]) -> dict[str, There]:
    """A stage whose first rounds are made and later ones are not: told by whole rounds."""
    count = rounds.count(config)
    made = {
        stage: sum(rounds.name_of(stage, number) in upstream for number in range(1, count + 1))
        for stage in (rounds.PREFERENCES, rounds.DPO)
    }
    return {stage: There(rows=done, of=count) for stage, done in made.items() if 0 < done < count}


def _whole(config: RunConfig, stage: str, manifest: Manifest) -> There:
    folder = description_folder(root_of(config.root), stage, manifest.content)
    counted = None
    if (folder / RECORD).is_file():
        description = Description.load(folder)
        counted = Counted(description.rows_in, description.kept)
    rows = sum(snapshot.rows for snapshot in manifest.snapshots.values())
    rows = rows or (counted.rows_in if counted else 0)
    return There(manifest, rows, rows, counted=counted)


def _partly(config: RunConfig, stage: Any, upstream: Mapping[str, Manifest]) -> There:
    """Whole shards of a stage whose upstream is whole, or steps of a training."""
    if stage.STAGE in TRAININGS:
        return _trained(config, stage, upstream)
    if stage.STAGE == captions.STAGE:  # its plan is its work: everything is read for it
        return There()
    root = root_of(config.root)
    files = {
        path.stem: f"{path.parent.parent.stem}/{path.stem}"
        for path in root.glob("tables/*/data/*.lance")
    }
    if not files:
        return There()
    works = stage.plan(config, upstream)
    made = {work.name.rpartition(":")[2]: work.rows for work in works}
    made = {files[name]: rows for name, rows in made.items() if name in files}
    spent = spent_on(root, stage.STAGE, set(made))
    return There(rows=sum(made.values()), of=sum(work.rows for work in works), spent=spent)


def _trained(config: RunConfig, stage: Any, upstream: Mapping[str, Manifest]) -> There:
    folder = stage.folder(config, upstream)
    place, spent = folder.kept, spent_on(folder.root, stage.STAGE, {folder.relative})
    if stage.STAGE == alignment.STAGE:
        assert config.dpo is not None
        steps = [(_newest(place), config.dpo.steps)]
    else:
        assert config.student is not None
        steps = [
            (_newest(place / student.phase_name(index, phase.image_size)), phase.steps)
            for index, phase in enumerate(config.student.trained)
        ]
    done, total = (sum(each) for each in zip(*steps, strict=True))
    return There(rows=done, of=total, phases=tuple(done / of for done, of in steps), spent=spent)


def _newest(folder: Path) -> int:
    """The step of a training's newest state; 0 where there is none."""
    steps = [path.stem.removeprefix("state-") for path in folder.glob("state-*.pt")]
    return max((int(step) for step in steps if step.isdigit()), default=0)
