"""One kind of work of one stage: how many pieces, and how long a device takes for them.

In:    a `RunConfig`; pieces, and their work where it is counted.
Out:   `Effort`, whose seconds are those of one device; None where nothing tells.
Rerun: pure functions.
"""

from dataclasses import dataclass

from pipeline import known_models
from pipeline.amounts import figure
from pipeline.config import (
    PicturesTeacher,
    RunConfig,
    ShapesEvaluator,
    ShapesJudge,
    ShapesTeacher,
)
from pipeline.rates import DEVICES, ON_CPU, ON_CUDA, PICTURES, SHAPES, PlanDevice, Rate, Work


@dataclass(frozen=True)
class Effort:
    """Equal pieces of one kind of work."""

    what: str
    work: Work
    pieces: float | None
    rate: Rate
    device: PlanDevice
    tflop: float | None = None  # of a piece, where it is counted
    size: int | None = None  # pixels along a side, where pieces are pictures

    @property
    def each(self) -> float | None:
        """TFLOP of a piece: the rate's own where the run states it."""
        return self.tflop if self.rate.tflop is None else self.rate.tflop * self._scale

    @property
    def seconds(self) -> float | None:
        """Of one device; None where the number of pieces or their work is not known."""
        if self.pieces == 0:
            return 0.0
        if self.pieces is None:
            return None
        if self.rate.per_second is not None:
            return self.pieces * self._scale / self.rate.per_second
        if self.each is None:
            return None
        assert self.rate.mfu is not None
        return self.pieces * self.each / (self.device.peak_tflops * self.rate.mfu)

    @property
    def _scale(self) -> float:
        """Of a picture of another size than the rate was stated for."""
        if self.size is None or self.rate.at_px is None:
            return 1.0
        return (self.size / self.rate.at_px) ** 2

    @property
    def source(self) -> str:
        """Where the figures come from."""
        if self.rate.mfu is None or self.each is None:
            return self.rate.source
        counted = "work and share" if self.rate.tflop else "counted; share"
        return f"{counted} {self.rate.source}"

    @property
    def told(self) -> str:
        """`80 TFLOP at 40 % of its peak` or `3,800 a second`."""
        if self.rate.per_second is not None:
            return f"{figure(self.rate.per_second)} a second"
        if self.each is None:
            return f"not counted: state plan.rates.{self.work}"
        return f"{_flop(self.each)} at {self.rate.mfu:.0%} of its peak"


def _flop(tflop: float) -> str:
    return f"{tflop:,.3g} TFLOP" if tflop >= 0.1 else f"{1000 * tflop:,.3g} GFLOP"


def device_of(config: RunConfig) -> PlanDevice:
    return config.plan.device or DEVICES[config.device]


def rate_of(config: RunConfig, work: Work) -> Rate:
    """The run's own rate, else the default of its device and of what does the work."""
    if work in config.plan.rates:
        return config.plan.rates[work]
    if work == "draw" and config.images and isinstance(config.images.teacher, PicturesTeacher):
        return PICTURES
    if _does_shapes(config, work):
        return SHAPES[work]
    return (ON_CPU if config.device == "cpu" else ON_CUDA)[work]


def _does_shapes(config: RunConfig, work: Work) -> bool:
    """Is this work the embedded world's, whose rates were measured?"""
    features = config.features
    match work:
        case "draw":
            images = config.images
            return images is not None and isinstance(images.teacher, ShapesTeacher)
        case "judge":
            verdicts = config.verdicts
            return verdicts is not None and isinstance(verdicts.judge, ShapesJudge)
        case "text":
            return features is not None and known_models.of_shapes(features.text_encoder)
        case "latents" | "decode":
            return features is not None and known_models.of_shapes(features.autoencoder)
        case "score":
            given = config.evaluation.evaluators if config.evaluation else ()
            return all(isinstance(each, ShapesEvaluator) for each in given)
    return False


def effort_of(
    config: RunConfig,
    what: str,
    work: Work,
    pieces: float | None,
    tflop: float | None = None,
    size: int | None = None,
) -> Effort:
    """The work with the rate and the device that the run gives it."""
    return Effort(what, work, pieces, rate_of(config, work), device_of(config), tflop, size)
