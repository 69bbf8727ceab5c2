"""The plan of a run: what each stage takes in rows, bytes, hours and money, before it is paid for.

In:    a `RunConfig`; what is made already (`pipeline/already.py`) and what this machine lacks.
Out:   `Plan`, a frozen value with a line a stage. Hours and money are of what is left to make;
       what nothing tells is None and has a sentence in `unknown`.
Rerun: a pure function but for `plan_of`, which looks at the run's root and at the machine.

Hours are those of one device, so that twice the devices cost the same and take half as long.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline import preflight
from pipeline.already import There, already
from pipeline.buckets import BucketPath
from pipeline.config import RunConfig
from pipeline.disk import free_bytes
from pipeline.efforts import efforts
from pipeline.expected import Counted, Expected, expected
from pipeline.known_models import Licence
from pipeline.licences import licences
from pipeline.rates import A100_TFLOPS, PAPER_DEVICE_DAYS, PlanDevice
from pipeline.room import expected_bytes
from pipeline.roots import root_of
from pipeline.work import Effort, device_of

STUDENT_STAGES = ("student", "preferences", "dpo")  # what the paper's figure is said to be for


@dataclass(frozen=True)
class Line:
    """One stage. Rows and bytes are of the whole stage, seconds as the names say."""

    stage: str
    rows_in: int | None
    kept: int | None
    bytes: float | None
    efforts: tuple[Effort, ...]
    there: There
    licences: tuple[Licence, ...]
    missing: tuple[str, ...]

    @property
    def reckoned(self) -> float | None:
        """Seconds of one device by the rates, as if nothing were there."""
        return _sum([effort.seconds for effort in self.efforts])

    @property
    def done(self) -> float:
        """The share of the work that is there."""
        if self.reckoned and len(self.there.phases) > 1 and not self.there.whole:
            parts = zip(*self._by_phase(), strict=True)
            return sum((effort.seconds or 0.0) * share for effort, share in parts) / self.reckoned
        return self.there.share

    @property
    def measured(self) -> bool:
        """Is the time of the rest what the part that is there took, whatever the rates say?"""
        return not self.there.whole and bool(self.there.spent) and self.done > 0

    @property
    def whole_seconds(self) -> float | None:
        """Of one device, as if nothing were there."""
        return (self.there.spent or 0.0) / self.done if self.measured else self.reckoned

    @property
    def seconds(self) -> float | None:
        """Of one device, for what is left to make."""
        if self.there.whole:
            return 0.0
        return None if self.whole_seconds is None else self.whole_seconds * (1 - self.done)

    @property
    def bytes_left(self) -> float | None:
        if self.there.whole:
            return 0.0
        return None if self.bytes is None else self.bytes * (1 - self.done)

    def _by_phase(self) -> tuple[Sequence[Effort], Sequence[float]]:
        """Efforts of a training, and the share that is done of the phase that each belongs to."""
        each = len(self.efforts) // len(self.there.phases)
        return self.efforts, [share for share in self.there.phases for _ in range(each)]


@dataclass(frozen=True)
class Plan:
    run: str
    device: PlanDevice
    devices: int
    lines: tuple[Line, ...]
    unknown: tuple[str, ...]  # sentences: what nothing tells, and how to state it
    cautions: tuple[str, ...]
    missing: tuple[str, ...]  # what this machine lacks, not of one stage
    shares: Mapping[str, str]  # stage -> what it is thought to keep, and why
    at_most: bool
    note: str = ""

    @property
    def seconds(self) -> float:
        """Of one device, for what is left and known."""
        return sum(line.seconds or 0.0 for line in self.lines)

    @property
    def whole_seconds(self) -> float:
        return sum(line.whole_seconds or 0.0 for line in self.lines)

    @property
    def bytes(self) -> float:
        """Still to be written, as far as it is known."""
        return sum(line.bytes_left or 0.0 for line in self.lines)

    @property
    def is_whole(self) -> bool:
        """Is the time of every stage known?"""
        return all(line.seconds is not None for line in self.lines)

    @property
    def students_device_days(self) -> float:
        """Of the stages that the paper's 88 A100-days are said to be for, as if nothing were there;
        in days of an A100 that is as busy."""
        lines = [line for line in self.lines if line.stage in STUDENT_STAGES]
        return a100_days(sum(line.whole_seconds or 0.0 for line in lines), self.device)

    def money(self, seconds: float) -> float:
        return seconds / 3600 * self.device.price_per_hour

    def line(self, stage: str) -> Line:
        return next(line for line in self.lines if line.stage == stage)

    def to_json(self) -> dict[str, Any]:
        """The figures for a program: seconds of one device, bytes and money of what is left."""
        stages = {
            line.stage: {
                "rows_in": line.rows_in,
                "kept": line.kept,
                "share_there": line.there.share,
                "bytes": line.bytes_left,
                "seconds": line.seconds,
                "whole_seconds": line.whole_seconds,
                "money": None if line.seconds is None else self.money(line.seconds),
                "licences": [asdict(licence) for licence in line.licences],
                "missing": list(line.missing),
            }
            for line in self.lines
        }
        return {
            "run": self.run,
            "device": self.device.model_dump(mode="json"),
            "stages": stages,
            "totals": {
                "bytes": self.bytes,
                "seconds": self.seconds,
                "whole_seconds": self.whole_seconds,
                "money": self.money(self.seconds),
            },
            "unknown": list(self.unknown),
            "cautions": list(self.cautions),
            "missing": list(self.missing),
        }


def a100_days(seconds: float, device: PlanDevice) -> float:
    """Days of an A100 at the same share of its peak."""
    return seconds / 86_400 * device.peak_tflops / A100_TFLOPS


def paper_seconds(device: PlanDevice) -> float:
    """The paper's 88 A100-days in seconds of this device, at the same share of its peak."""
    return PAPER_DEVICE_DAYS * 86_400 * A100_TFLOPS / device.peak_tflops


def plan_of(config: RunConfig) -> Plan:
    """The plan of a run on this machine, with what its root holds."""
    names = [name for name in preflight.SECTIONS if preflight.configured(config, name)]
    lacking = {name: preflight.missing(config, [name]) for name in names}
    plan = build_plan(config, already(config), lacking)
    return replace(plan, missing=(*plan.missing, *disk_missing(plan, config.root)))


def disk_missing(plan: Plan, root: str) -> list[str]:
    """A sentence where what is still to be written is more than the disk holds."""
    place = root_of(root)
    if isinstance(place, BucketPath):  # a store has no end that it would tell
        return []
    free = free_bytes(place)
    if plan.bytes <= free:
        return []
    return [
        f"disk: {plan.bytes / 1e9:,.0f} GB are still to be written and {free / 1e9:,.0f} GB are "
        f"free at {root}"
    ]


def build_plan(
    config: RunConfig,
    there: Mapping[str, There] | None = None,
    lacking: Mapping[str, Sequence[str]] | None = None,
) -> Plan:
    """The plan from values alone: without `there`, as if nothing were made."""
    there, lacking = there or {}, lacking or {}
    made = {stage: each.counted for stage, each in there.items() if each.counted}
    rows = expected(config, made)
    work, room = efforts(config, rows), expected_bytes(config, rows)
    shared = _of_all(lacking)
    lines = tuple(
        Line(
            stage,
            *_counts(stage, rows, made.get(stage)),
            room[stage],
            work[stage],
            there.get(stage, There()),
            licences(config, stage),
            tuple(line for line in lacking.get(stage, ()) if line not in shared),
        )
        for stage in work
    )
    return Plan(
        run=config.name,
        device=device_of(config),
        devices=config.plan.devices,
        lines=lines,
        unknown=(*rows.unknown, *_uncounted(lines), *_rewriting(config)),
        cautions=tuple(preflight.cautions(config, list(work))),
        missing=shared,
        shares=rows.shares,
        at_most=rows.at_most,
        note=config.note,
    )


def _counts(stage: str, rows: Expected, made: Counted | None) -> tuple[int | None, int | None]:
    """Rows in and rows kept, as the report will count them."""
    if made is not None:
        return made.rows_in, made.kept
    pictures, drawn, accepted = (
        None if by_size is None else sum(by_size.values())
        for by_size in (rows.pictures, rows.drawn, rows.accepted)
    )
    found: dict[str, tuple[float | None, float | None]] = {
        "captions": (rows.captions, rows.kept_captions),
        "images": (pictures, drawn),
        "verdicts": (pictures, accepted),
        "features": (pictures, accepted),
        "student": (accepted, accepted),
        "preferences": (rows.comparisons, rows.pairs),
        "dpo": (rows.pairs, rows.pairs),
        "evaluate": (rows.scored, None),  # what is right is what it measures
    }
    first, second = (None if n is None else math.floor(n + 0.5) for n in found[stage])
    return first, second


def _of_all(lacking: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """What is said of more than one stage, once: the device, the disk, a model that two load."""
    said = [line for lines in lacking.values() for line in lines]
    return tuple(dict.fromkeys(line for line in said if said.count(line) > 1))


def _uncounted(lines: Sequence[Line]) -> list[str]:
    """A sentence for each kind of work whose time nothing tells though its pieces are known."""
    found: dict[str, str] = {}
    for line in lines:
        for effort in line.efforts:
            if effort.pieces is not None and effort.seconds is None and not line.measured:
                text = f"{line.stage}: the work of `{effort.work}` is {effort.told}"
                found.setdefault(effort.work, text)
    return list(found.values())


def _rewriting(config: RunConfig) -> list[str]:
    if config.captions.rewriter is None:
        return []
    model = config.captions.rewriter.model
    return [f"captions: the time of the rewriter {model} is not reckoned"]


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
