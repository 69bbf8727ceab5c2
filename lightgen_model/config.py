"""The values that make a student: widths, depths, head, and the sizes of what it reads and writes.

In:    nothing; this file loads neither torch nor the pipeline.
Out:   `ModelConfig`, one frozen value from which `LightGen` is built, and four named sizes;
       `SamplingConfig`, the values with which it draws.

Units: pixels for image sizes, latent cells for `patch_size`, tokens for `text_length`.
"""

from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

TIME_FEATURES = 256  # sinusoids of a time, before the head embeds it


class HeadConfig(BaseModel):
    """The per-token diffusion MLP (MAR, arXiv 2406.11838, section 3.2)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ddpm", "flow"] = "ddpm"  # ddpm: as published; flow: velocity, logit-normal t
    depth: int = Field(8, ge=1)
    width: int = Field(1536, ge=8)
    diffusion_steps: int = Field(1000, ge=2)  # ddpm only: length of the training schedule
    batch_multiplier: int = Field(4, ge=1)  # (t, noise) draws for each token
    # So many draws of a token share a time, and with it the modulations, most of the head's work,
    # and differ in noise; 1, as published: each draw has a time of its own. Of 4 draws, 2 a time
    # add no gradient noise that shows, 4 a time 15% (`tests/benchmarks/draws.py`).
    noises_per_time: int = Field(1, ge=1)
    # True: a token's times fall in equal parts of the time distribution, which has the same mean
    # and less variance; False: independent, as published.
    stratified: bool = False
    time_shift: float = Field(0.0)  # flow only: mean of the logit-normal t; above 0 is noisier

    @model_validator(mode="after")
    def _times_are_whole(self) -> "HeadConfig":
        if self.batch_multiplier % self.noises_per_time:
            raise ValueError(
                f"noises_per_time {self.noises_per_time} must divide batch_multiplier "
                f"{self.batch_multiplier}"
            )
        return self

    @property
    def times_per_token(self) -> int:
        """Different training times of a token."""
        return self.batch_multiplier // self.noises_per_time


class RepaConfig(BaseModel):
    """Representation alignment (REPA, arXiv 2410.06940): in training, hidden states of a decoder
    block are drawn towards what a frozen vision model sees at the same place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(ge=1)  # of the vision model's features
    block: int = Field(8, ge=1)  # after this many decoder blocks
    hidden: int = Field(2048, ge=1)  # of the projection
    weight: float = Field(0.5, gt=0)  # of the mean cosine distance in the loss
    # So many steps of the training, all phases together, are aligned; late in a training the vision
    # model can hold the student back (HASTE, arXiv 2505.16792). None: all.
    steps: int | None = Field(None, ge=1)

    def weight_at(self, step: int) -> float:
        """Of a step of the training, counted from 0 over all phases."""
        return self.weight if self.steps is None or step < self.steps else 0.0


class ModelConfig(BaseModel):
    """Everything that fixes the student's tensors. Equal configs have equal state dicts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_image_size: int = Field(256, ge=16)  # pixels; fixes the grid of the position tables
    latent_channels: int = Field(16, ge=1)
    latent_stride: int = Field(8, ge=1)  # pixels a latent cell
    patch_size: int = Field(2, ge=1)  # latent cells a token side
    width: int = Field(1024, ge=8)
    num_heads: int = Field(16, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)
    encoder_depth: int = Field(16, ge=1)
    decoder_depth: int = Field(16, ge=1)
    cross_depth: int = Field(16, ge=1)
    aligner_depth: int = Field(6, ge=0)
    text_width: int = Field(4096, ge=1)
    text_length: int = Field(128, ge=1)  # captions are cut here
    attend_padding: bool = True  # True: as published; False: padded text is masked out
    dropout: float = Field(0.1, ge=0, lt=1)
    text_drop: float = Field(0.1, ge=0, lt=1)  # share of samples trained without their caption
    qk_norm: bool = False  # True: queries and keys are normed in each head; published: not
    head: HeadConfig = HeadConfig()
    repa: RepaConfig | None = None  # training only; a checkpoint to draw with has none

    @model_validator(mode="after")
    def _sizes_fit(self) -> "ModelConfig":
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} must be a multiple of num_heads {self.num_heads}")
        if self.repa and self.repa.block > self.decoder_depth:
            raise ValueError(
                f"repa.block {self.repa.block} must be at most decoder_depth {self.decoder_depth}"
            )
        self.grid(self.base_image_size)
        return self

    @property
    def drawn(self) -> "ModelConfig":
        """The same without what only training reads."""
        return self.model_copy(update={"repa": None})

    @property
    def token_dim(self) -> int:
        return self.latent_channels * self.patch_size**2

    @property
    def token_pixels(self) -> int:
        """Pixels along one side of a token."""
        return self.latent_stride * self.patch_size

    def grid_of(self, image_size: int | tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tokens of a picture; a tuple is (height, width) in pixels."""
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        return self.grid(height), self.grid(width)

    def grid(self, image_size: int) -> int:
        """Tokens along one side of a square picture of `image_size` pixels."""
        if image_size < self.token_pixels or image_size % self.token_pixels:
            raise ValueError(
                f"image size {image_size} must be a multiple of the token size "
                f"{self.token_pixels} (latent stride {self.latent_stride} x patch "
                f"{self.patch_size})"
            )
        return image_size // self.token_pixels


Solver = Literal["ancestral", "ddim", "dpm2m", "euler", "heun"]
SOLVERS: dict[str, tuple[Solver, ...]] = {  # of each head kind, its default first
    "ddpm": ("ancestral", "ddim", "dpm2m"),
    "flow": ("euler", "heun"),
}


class SamplingConfig(BaseModel):
    """How a picture is drawn. The defaults are those of the published scripts (lightgen.md 3.1)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_iterations: int = Field(64, ge=1)  # autoregressive steps, K; at most one a token
    head_steps: int = Field(100, ge=1)  # denoising steps a token
    # Step annealing (DiSA, arXiv 2505.20297): the steps fall from head_steps in the first
    # iteration to this in the last, since later tokens have less left to decide. None: constant.
    last_head_steps: int | None = Field(None, ge=1)
    solver: Solver | None = None  # None: the head kind's own, ancestral for ddpm, euler for flow
    guidance: float = Field(4.0, ge=0)  # 1: none, and half the cost
    guidance_schedule: Literal["constant", "linear"] = "constant"
    temperature: float = Field(1.0, ge=0)  # scales the noise
    # ddpm only: the clean tokens that a predicted noise implies are held within +- this. A head
    # that has not learned the first steps to three digits throws them far off. None: as published.
    token_limit: float | None = Field(None, gt=0)

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Without a limit the values are those they were before it: names made of them stay."""
        values: dict[str, object] = handler(self)
        if self.token_limit is None:
            values.pop("token_limit", None)
        return values

    @model_validator(mode="after")
    def _steps_fall(self) -> "SamplingConfig":
        if self.last_head_steps is not None and self.last_head_steps > self.head_steps:
            raise ValueError(
                f"last_head_steps: {self.last_head_steps}; allowed: 1 to head_steps "
                f"{self.head_steps}"
            )
        return self

    def head_steps_at(self, iteration: int) -> int:
        """Denoising steps in an iteration counted from 0: linear between the two ends, rounded."""
        if self.last_head_steps is None or self.num_iterations == 1:
            return self.head_steps
        done = iteration / (self.num_iterations - 1)
        return round(self.head_steps + (self.last_head_steps - self.head_steps) * done)

    def guidance_at(self, left: int, count: int) -> float:
        """Guidance in the iteration that leaves `left` of `count` tokens; linear as in Muse."""
        if self.guidance_schedule == "constant":
            return self.guidance
        # The published code keeps one token back in this formula even in the last iteration.
        return 1 + (self.guidance - 1) * (count - max(1, left)) / count

    def solver_of(self, head: HeadConfig) -> Solver:
        """The solver by name; ValueError for one of the other head kind."""
        allowed = SOLVERS[head.kind]
        if self.solver is not None and self.solver not in allowed:
            raise ValueError(
                f"solver: {self.solver!r} does not fit a {head.kind} head; "
                f"allowed: {', '.join(allowed)}"
            )
        return self.solver or allowed[0]

    def check(self, head: HeadConfig, num_tokens: int) -> None:
        """ValueError where a picture of `num_tokens` tokens cannot be drawn with these values."""
        self.solver_of(head)
        if self.token_limit is not None and head.kind != "ddpm":
            raise ValueError(
                f"token_limit: {self.token_limit} does not fit a {head.kind} head; allowed: none"
            )
        if self.num_iterations > num_tokens:
            raise ValueError(
                f"num_iterations: {self.num_iterations} iterations for {num_tokens} tokens; "
                f"allowed: 1 to {num_tokens}"
            )
        if head.kind == "ddpm" and self.head_steps > head.diffusion_steps:
            raise ValueError(
                f"head_steps: {self.head_steps} head steps; allowed: 1 to {head.diffusion_steps}"
            )


def lightgen_published() -> ModelConfig:
    """The 792 M configuration of the released scripts (lightgen.md 1.1)."""
    return ModelConfig()


def lightgen_base() -> ModelConfig:
    """The 407 M sibling in the published file: `fluid_base` with the same 8 x 1536 head."""
    return ModelConfig(width=768, num_heads=12, encoder_depth=12, decoder_depth=12, cross_depth=12)


def tiny() -> ModelConfig:
    """Six million parameters in the improved mode at 64 px: trains on a CPU in minutes."""
    return ModelConfig(
        base_image_size=64,
        width=192,
        num_heads=4,
        encoder_depth=3,
        decoder_depth=4,
        cross_depth=3,
        aligner_depth=1,
        text_width=128,
        text_length=20,
        attend_padding=False,
        dropout=0.0,
        head=HeadConfig(kind="flow", depth=3, width=256, stratified=True, time_shift=1.5),
    )


def debug() -> ModelConfig:
    """Two layers of width 32: for tests."""
    return ModelConfig(
        base_image_size=64,
        width=32,
        num_heads=4,
        encoder_depth=2,
        decoder_depth=2,
        cross_depth=2,
        aligner_depth=1,
        text_width=128,
        text_length=16,
        attend_padding=False,
        dropout=0.0,
        head=HeadConfig(kind="flow", depth=2, width=48, batch_multiplier=2),
    )
