"""The cost ledger of a run: what was planned, what it cost when it was made, what this run spent.

In:    the plan, the manifests of the stages, what this run took for each.
Out:   `Costs`, a frozen value with a line a stage; as JSON for report.json.
Rerun: a stage that is reused shows what it cost when it was made, and nothing spent now.

Seconds are of devices: an hour of eight processes is eight hours.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import RunConfig
from pipeline.description import Description, Timing
from pipeline.plan import STUDENT_STAGES, Line, Plan, a100_days
from pipeline.rates import PAPER_DEVICE_DAYS, PlanDevice
from pipeline.room import bytes_on_disk
from pipeline.roots import root_of
from pipeline.spending import device_seconds, devices_of
from pipeline.tables import Manifest


@dataclass(frozen=True)
class Cost:
    """Of one stage. None: not known before, or not written down."""

    stage: str
    planned_rows: int | None
    rows: int
    planned_bytes: float | None
    bytes: int
    planned_seconds: float | None  # as if nothing had been there
    seconds: float | None  # when it was made
    now: float  # in this run; 0 for a reused stage


@dataclass(frozen=True)
class Costs:
    run: str
    device: PlanDevice
    lines: tuple[Cost, ...]

    def money(self, seconds: float | None) -> float | None:
        return None if seconds is None else seconds / 3600 * self.device.price_per_hour

    @property
    def planned(self) -> float:
        """Device-seconds, of the stages whose time could be planned."""
        return sum(line.planned_seconds or 0.0 for line in self.lines)

    @property
    def seconds(self) -> float:
        return sum(line.seconds or 0.0 for line in self.lines)

    @property
    def now(self) -> float:
        return sum(line.now for line in self.lines)

    @property
    def students_device_days(self) -> float:
        """Of the stages that the paper's figure is said to be for, in days of an A100 as busy."""
        lines = [line for line in self.lines if line.stage in STUDENT_STAGES]
        return a100_days(sum(line.seconds or 0.0 for line in lines), self.device)

    def to_json(self) -> dict[str, Any]:
        """Values of report.json: seconds of devices, money in the device's currency."""
        stages = {}
        for line in self.lines:
            figures = asdict(line)
            figures.pop("stage")
            stages[line.stage] = figures | {
                "planned_money": self.money(line.planned_seconds),
                "money": self.money(line.seconds),
                "money_now": self.money(line.now),
            }
        return {
            "device": self.device.model_dump(mode="json"),
            "stages": stages,
            "totals": {
                "planned_seconds": self.planned,
                "seconds": self.seconds,
                "now": self.now,
                "planned_money": self.money(self.planned),
                "money": self.money(self.seconds),
                "money_now": self.money(self.now),
            },
            "student_a100_days": self.students_device_days,
            "paper_a100_days": PAPER_DEVICE_DAYS,
        }


def costs_of(
    config: RunConfig,
    plan: Plan,
    manifests: Mapping[str, Manifest],
    descriptions: Mapping[str, Description],
    timings: Mapping[str, Timing],
) -> Costs:
    """A line for every stage of the plan that has a manifest."""
    return Costs(
        config.name,
        plan.device,
        tuple(
            cost
            for line in plan.lines
            if (cost := _cost_of(config, line, manifests, descriptions, timings))
        ),
    )


def _cost_of(
    config: RunConfig,
    line: Line,
    manifests: Mapping[str, Manifest],
    descriptions: Mapping[str, Description],
    timings: Mapping[str, Timing],
) -> Cost | None:
    """One stage's line, of all that it left; what this run spent is the clock's, a device."""
    root = root_of(config.root)
    left = {name: each for name, each in manifests.items() if each.stage == line.stage}
    if not left:
        return None
    took = [timings[name] for name in left if name in timings]
    paid = [device_seconds(root, manifest) for manifest in left.values()]
    known = [seconds for seconds in paid if seconds is not None]
    return Cost(
        stage=line.stage,
        planned_rows=line.rows_in,
        rows=sum(descriptions[name].rows_in for name in left),
        planned_bytes=line.bytes,
        bytes=sum(bytes_on_disk(root, manifest) for manifest in left.values()),
        planned_seconds=line.whole_seconds,
        seconds=sum(known) if len(known) == len(paid) else None,
        now=sum(each.seconds for each in took if each.made) * devices_of(config, line.stage),
    )
