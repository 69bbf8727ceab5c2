"""What work costs: the device, its price, how fast it does each kind of work, what rows are kept.

In:    the `plan:` section of a run; what it leaves out is a default of the run's kind of device.
Out:   frozen values, each with where it comes from: measured, counted or stated.

These values change no row and no weight: they are in no fingerprint.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PAPER_DEVICE_DAYS = 88.0  # A100-days for the student; the teacher's pictures are not among them
A100_TFLOPS = 312.0
OURS = "stated, ours"


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanDevice(Value):
    """What is paid for by the hour."""

    name: str = Field(min_length=1)
    peak_tflops: float = Field(gt=0)  # of one, dense, in the arithmetic that training uses
    price_per_hour: float = Field(ge=0)  # of one, with its share of the machine around it
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")  # ISO 4217
    source: str = OURS  # of the peak and the price


class Rate(Value):
    """How fast one device does one kind of work: so many a second, or a share of its peak."""

    per_second: float | None = Field(None, gt=0)
    mfu: float | None = Field(None, gt=0, le=1)  # of the peak; recomputation counts as work
    tflop: float | None = Field(None, gt=0)  # of one piece, where the plan cannot count it
    # Side of the pictures that `per_second` or `tflop` hold for; others cost by their pixels.
    at_px: int | None = Field(None, ge=1)
    source: str = Field(min_length=1)  # where the figure comes from

    @model_validator(mode="after")
    def _one_of_two(self) -> "Rate":
        if (self.per_second is None) == (self.mfu is None):
            raise ValueError(
                f"give per_second or mfu, one of them (got per_second {self.per_second}, "
                f"mfu {self.mfu})"
            )
        if self.tflop is not None and self.mfu is None:
            raise ValueError(f"tflop: {self.tflop} says nothing beside per_second; give mfu")
        return self


Work = Literal[
    "screen",  # a caption read, compared and decided
    "draw",  # a teacher's picture, with its text and its decoding
    "judge",  # a picture judged
    "text",  # a caption encoded
    "latents",  # a picture encoded by the VAE
    "decode",  # a latent decoded by the VAE
    "train",  # a sample: forward and backward pass
    "align",  # a pair of DPO, policy and reference
    "sample",  # a student's picture
    "score",  # a picture scored by an evaluator
]


class KeptShares(Value):
    """Of the rows that a stage gets, the share that it keeps; None: the default, told with it."""

    captions: float | None = Field(None, gt=0, le=1)
    images: float | None = Field(None, gt=0, le=1)
    verdicts: float | None = Field(None, gt=0, le=1)
    preferences: float | None = Field(None, gt=0, le=1)


class PlanConfig(Value):
    """What a plan reckons with. A device of another price is one value: plan.device."""

    device: PlanDevice | None = None  # None: the default of the run's `device`
    devices: int = Field(1, ge=1)  # that work at once: what the hours on the clock follow from
    rates: dict[Work, Rate] = {}  # these alone; the others stay the defaults
    kept: KeptShares = KeptShares()
    source_rows: dict[str, int] = {}  # caption source -> rows, where nothing can tell how many

    def __hash__(self) -> int:  # mappings among the values have none
        return hash(self.model_dump_json())


# --- defaults -----------------------------------------------------------------------------------

DEVICES = {
    "cpu": PlanDevice(
        name="pair of CPU cores",
        peak_tflops=0.67,
        price_per_hour=0.10,
        source="peak counted (2 x 2.6 GHz x 128 bf16 operations a cycle); price stated, ours",
    ),
    "cuda": PlanDevice(
        name="A100 80 GB",
        peak_tflops=A100_TFLOPS,
        price_per_hour=2.00,
        source="peak from the data sheet (bf16, dense); price stated, ours: put in what you pay",
    ),
}
_TINY = "measured: tiny run, two cores"
SCREENING = Rate(per_second=14_700, source="measured: a million captions, two cores")
ON_CPU: dict[Work, Rate] = {
    "screen": Rate(per_second=18_000, source=_TINY),
    "train": Rate(mfu=0.33, source=_TINY),
    "align": Rate(mfu=0.34, source=_TINY),
    "sample": Rate(mfu=0.17, source=f"{_TINY}, decoding in it"),
    # What follows is used for models that can be counted; those of the tiny run have SHAPES.
    **{
        work: Rate(mfu=0.3, source=OURS)
        for work in ("draw", "judge", "text", "latents", "decode", "score")
    },
}
SHAPES: dict[Work, Rate] = {  # of the embedded world, on the CPU
    "draw": Rate(per_second=3_800, source=_TINY),
    "judge": Rate(per_second=2_900, source=_TINY),
    "text": Rate(per_second=760, source=_TINY),
    "latents": Rate(per_second=760, source=_TINY),
    "decode": Rate(per_second=1e6, source="part of drawing"),
    "score": Rate(per_second=2_900, source=_TINY),
}
PICTURES = Rate(per_second=100, at_px=512, source=f"{OURS}: decoded and stored, one core")
ON_CUDA: dict[Work, Rate] = {
    "screen": SCREENING,
    "draw": Rate(mfu=0.40, source=OURS),
    "judge": Rate(mfu=0.25, source=OURS),  # an answer is written a token at a time
    "text": Rate(mfu=0.40, source=OURS),
    "latents": Rate(mfu=0.30, source=OURS),
    "decode": Rate(mfu=0.30, source=OURS),
    "train": Rate(mfu=0.40, source=OURS),  # usual for a transformer of this size
    "align": Rate(mfu=0.40, source=OURS),
    "sample": Rate(mfu=0.20, source=OURS),  # the head's calls are small
    "score": Rate(mfu=0.20, tflop=0.6, source=OURS),  # Swin-S at 800 px, CLIP on crops
}
