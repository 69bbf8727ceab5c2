"""The values of a run: one frozen model a stage, read from `infra/runs/<name>.yaml`.

In:    a YAML file of values and overrides by dotted path (`{"dpo.beta": 100}`).
Out:   `RunConfig`; a wrong value is a `ValueError` that names the place, the value and what is
       allowed. Nothing else is read, no model library is imported.

An override changes the value it names and no other.
"""

import difflib
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

import lightgen_model.config
from lightgen_model.config import ModelConfig
from pipeline.buckets import check_root
from pipeline.credentials import is_secret, masked
from pipeline.rates import PlanConfig

RUNS = Path(__file__).parent.parent / "infra" / "runs"
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


PLUGIN_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
PluginValues = dict[str, str | int | float | bool | None]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _without_password(endpoint: str) -> str:
    if masked(endpoint) != endpoint:
        raise ValueError(
            "an address holds no user or key: the run's values are kept for everyone to see; "
            "api_key_variable names the environment's variable that holds the key"
        )
    return endpoint


Endpoints = Annotated[
    tuple[Annotated[str, AfterValidator(_without_password)], ...], Field(min_length=1)
]


# --- captions ---------------------------------------------------------------------------------


ShapesTask = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]


class ShapesCaptions(Frozen):
    """Captions from the grammar of the embedded world; held-out prompts never occur."""

    kind: Literal["shapes"]
    name: str = "shapes"
    num_captions: int = Field(ge=1)
    seed: int = 0
    # How often each task is asked, of all together; {}: the tasks in turn.
    task_shares: dict[ShapesTask, Annotated[float, Field(ge=0)]] = {}

    @model_validator(mode="after")
    def _asks_something(self) -> "ShapesCaptions":
        if self.task_shares and not sum(self.task_shares.values()):
            raise ValueError("task_shares: all of them are 0")
        return self

    def __hash__(self) -> int:  # a mapping among the values has none
        return hash(self.model_dump_json())


class CaptionSet(Frozen):
    """What every set of captions from outside has."""

    name: str  # the source column of its rows
    licence: str
    enabled: bool = True  # a run may name sets that it does not use
    caution: str = ""  # what a person must know before using it; shown before a run starts


class FileCaptions(CaptionSet):
    """One caption set in files: parquet, JSON lines, TSV, or text with a caption a line."""

    kind: Literal["files"]
    paths: tuple[str, ...] = Field(min_length=1)  # files or glob patterns, relative to the repo
    format: Literal["parquet", "jsonl", "tsv", "text"]
    column: str | None = None  # parquet, jsonl, tsv: the column or key that holds the caption


class WebDatasetCaptions(CaptionSet):
    """One caption set in WebDataset tars; nothing in them is ever written to disk."""

    kind: Literal["webdataset"]
    paths: tuple[str, ...] = Field(min_length=1)  # tars or glob patterns
    member: str = Field("json", min_length=1)  # the ending of the members that hold captions
    column: str | None = "prompt"  # the key in a JSON member; None: the member is the caption


class RowFilter(Frozen):
    """Which rows of a data set are wanted; the others stay in the table with this as reason."""

    column: str
    equals: str | int | float | bool | None = None
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "RowFilter":
        if (self.equals, self.at_least, self.at_most) == (None, None, None):
            raise ValueError("a filter needs equals, at_least or at_most")
        return self


class HuggingFaceCaptions(CaptionSet):
    """One caption set read as a stream by the library `datasets`: a hub repository or a folder."""

    kind: Literal["hugging_face"]
    dataset: str  # a folder, or owner/name on the hub
    subset: str | None = None  # the configuration, where a data set has several
    split: str = "train"
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")  # a hub's data set needs it
    column: str  # may lead into structs and lists: "conversations.1.value"
    filters: tuple[RowFilter, ...] = ()


class PluginCaptions(CaptionSet):
    """A source of one's own: `pipeline.plugins` says which code may be named."""

    kind: Literal["plugin"]
    path: str = Field(pattern=PLUGIN_PATH)  # package.module:Class
    values: PluginValues = {}  # what the class is called with

    def __hash__(self) -> int:  # a mapping among the values has none
        return hash(self.model_dump_json())


CaptionSourceConfig = Annotated[
    ShapesCaptions | FileCaptions | WebDatasetCaptions | HuggingFaceCaptions | PluginCaptions,
    Field(discriminator="kind"),
]


class LanguageConfig(Frozen):
    """Captions that can hardly be in one of these languages are rejected."""

    allowed: tuple[str, ...] = Field(("en",), min_length=1)  # ISO 639-1
    min_probability: float = Field(0.01, gt=0, lt=1)  # of all allowed languages together
    min_characters: int = Field(20, ge=1)  # shorter captions give no evidence and pass


class NearDuplicatesConfig(Frozen):
    """Of captions that nearly repeat each other the first is kept."""

    similarity: float = Field(0.8, gt=0, le=1)  # Jaccard index of their 5-letter shingles
    keep_concepts: bool = True  # other colours, counts, places or objects: another caption


class DecontaminationConfig(Frozen):
    """No caption that equals or nearly equals a prompt of these sets is kept."""

    prompts: tuple[FileCaptions, ...] = Field(min_length=1)
    similarity: float = Field(0.7, gt=0, le=1)


class HashedEmbedding(Frozen):
    """Words and pairs of words, hashed, weighted by rarity and reduced by an SVD."""

    kind: Literal["hashed"]
    dimensions: int = Field(64, ge=2)


class EncoderEmbedding(Frozen):
    """The mean of a transformer encoder's states over a caption's tokens."""

    kind: Literal["encoder"]
    model: str  # folder or hub repository
    revision: str | None = None
    max_tokens: int = Field(128, ge=2)
    batch_size: int = Field(256, ge=1)


EmbeddingConfig = Annotated[HashedEmbedding | EncoderEmbedding, Field(discriminator="kind")]


class DiversityConfig(Frozen):
    """How diversity is measured; measuring changes no row."""

    embedding: EmbeddingConfig = HashedEmbedding(kind="hashed")
    clusters: int = Field(200, ge=2)
    sample: int = Field(20_000, ge=10)  # captions that are embedded, evenly over all
    seed: int = 0


class SelectionConfig(Frozen):
    """Keep so many captions that every part of what there is occurs as evenly as it can."""

    num_captions: int = Field(ge=1)
    short_share: float | None = Field(0.3, ge=0, le=1)  # None: as it comes
    clusters: int = Field(1000, ge=1)
    embedding: EmbeddingConfig = HashedEmbedding(kind="hashed")
    seed: int = 0


class RewriterConfig(Frozen):
    """A language model behind OpenAI-format servers lengthens short captions."""

    model: str
    endpoints: Endpoints
    api_key_variable: str | None = None  # of the environment; the run never holds the key
    share: float = Field(0.7, gt=0, le=1)  # of the short captions kept, by their hash
    max_words: int = Field(80, ge=10)
    requests_in_flight: int = Field(64, ge=1)
    timeout_seconds: float = Field(60, gt=0)
    patience_seconds: float = Field(300, gt=0)  # for one answer, all retries together


class CaptionsConfig(Frozen):
    sources: tuple[CaptionSourceConfig, ...] = Field(min_length=1)
    min_characters: int = Field(3, ge=1)
    max_characters: int = Field(2000, ge=1)
    long_words: int = Field(20, ge=1)  # a caption of this many words or more is `long`
    rows_per_shard: int = Field(5000, ge=1)
    # Each of these is off unless the run says so.
    language: LanguageConfig | None = None
    blocklist: tuple[str, ...] = ()  # files with a word or phrase a line; `#` starts a remark
    decontamination: DecontaminationConfig | None = None
    near_duplicates: NearDuplicatesConfig | None = None
    selection: SelectionConfig | None = None
    rewriter: RewriterConfig | None = None
    diversity: DiversityConfig | None = None

    @model_validator(mode="after")
    def _names_differ(self) -> "CaptionsConfig":
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"source names must differ, got {names}")
        if not self.active:
            raise ValueError(f"sources: none of {names} is enabled")
        return self

    @property
    def active(self) -> tuple[CaptionSourceConfig, ...]:
        """The sources that are used."""
        return tuple(s for s in self.sources if not isinstance(s, CaptionSet) or s.enabled)


# --- images -----------------------------------------------------------------------------------


class ShapesTeacher(Frozen):
    """Draws a caption of the grammar; `error_rate` of the pictures are wrong on purpose."""

    kind: Literal["shapes"]
    cell_pixels: int = Field(16, ge=8)  # side of one cell of the placement grid
    jitter_pixels: int = Field(0, ge=0)
    free_placement: bool = False
    error_rate: float = Field(0.1, ge=0, le=1)
    licence: Literal["MIT"] = "MIT"


class QuantizationConfig(Frozen):
    """Weights of fewer bits, by a library that is loaded only where this is asked for."""

    method: Literal["bitsandbytes_4bit", "bitsandbytes_8bit", "torchao"]
    weights: Literal["int8", "int4", "float8"] = "int8"  # torchao alone
    components: tuple[str, ...] = Field(("transformer",), min_length=1)  # of the pipeline

    @model_validator(mode="after")
    def _weights_are_torchaos(self) -> "QuantizationConfig":
        if self.method != "torchao" and self.weights != "int8":
            raise ValueError(
                f"weights: {self.weights!r} is for torchao; {self.method} names its own bits"
            )
        return self


class SafetyConfig(Frozen):
    """An image classifier; a picture whose unsafe labels reach the threshold is not kept."""

    repository: str
    revision: str | None = None
    labels: tuple[str, ...] = Field(("nsfw",), min_length=1)
    threshold: float = Field(0.5, gt=0, le=1)


class DiffusersTeacher(Frozen):
    """Any text-to-image pipeline of diffusers, by class name and folder or hub repository."""

    kind: Literal["diffusers"]
    pipeline: str = "FluxPipeline"
    repository: str
    revision: str | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    num_steps: int = Field(4, ge=1)
    guidance: float = Field(0.0, ge=0)
    max_sequence_length: int = Field(256, ge=1)  # where the pipeline has it
    # Further values of the pipeline's call: {true_cfg_scale: 4.0, negative_prompt: " "}
    arguments: dict[str, str | int | float | bool | None] = {}
    quantization: QuantizationConfig | None = None
    safety: SafetyConfig | None = None
    # How it is run changes the last bits of a picture at most, so it names no other table.
    batch_size: int = Field(8, ge=1)  # halved for the rest of the process when memory runs out
    text_batch_size: int = Field(16, ge=1)  # captions whose text is encoded together
    offload: Literal["none", "model", "sequential"] = "none"  # to the CPU's memory
    compile: bool = False  # the repeated blocks of the denoiser
    attention_backend: str | None = None  # by diffusers' name: native, flash, _flash_3_hub, sage
    licence: str

    def __hash__(self) -> int:  # a mapping among the values has none
        return hash(self.model_dump_json())


class PicturesTeacher(Frozen):
    """Pictures that are there already, found by their caption: nothing is drawn."""

    kind: Literal["pictures"]
    name: str  # the teacher column of its rows: what drew them, or the set's name
    dataset: str | None = None  # its hub repository, for the terms that are known of it
    revision: str = "local"
    paths: tuple[str, ...] = Field(min_length=1)  # files or glob patterns, relative to the repo
    format: Literal["webdataset", "parquet"]
    image: str = "jpg"  # webdataset: ending of the picture's member; parquet: its column
    member: str = "json"  # webdataset: ending of the caption's member
    column: str | None = "prompt"  # key in a JSON member, or column; None: the member is the text
    max_pixels: int = Field(64_000_000, ge=1)  # of a picture that is decoded
    licence: str


class PluginTeacher(Frozen):
    """A teacher of one's own: `pipeline.plugins` says which code may be named."""

    kind: Literal["plugin"]
    path: str = Field(pattern=PLUGIN_PATH)  # package.module:Class
    values: PluginValues = {}  # what the class is called with
    version: int = Field(1, ge=1)  # raised by hand when its code draws other pictures
    licence: str

    def __hash__(self) -> int:  # a mapping among the values has none
        return hash(self.model_dump_json())


TeacherConfig = Annotated[
    ShapesTeacher | DiffusersTeacher | PicturesTeacher | PluginTeacher,
    Field(discriminator="kind"),
]


class PictureFormat(Frozen):
    """How pictures are stored. PNG loses nothing and takes five to ten times the room."""

    format: Literal["png", "webp", "jpeg"] = "png"
    quality: int = Field(95, ge=1, le=100)  # webp, jpeg


class ImagesConfig(Frozen):
    teacher: TeacherConfig
    picture: PictureFormat = PictureFormat()
    image_sizes: tuple[int, ...] = Field(min_length=1)  # each caption is drawn once a size
    max_captions: dict[int, int] = {}  # size -> draw only the first n captions at this size
    seeds_per_caption: int = Field(1, ge=1)
    rows_per_shard: int = Field(2048, ge=1)  # pictures
    accept_licence: str | None = None  # needed for teachers whose licence restricts distillation
    seed: int = 0

    @model_validator(mode="after")
    def _cells_fit(self) -> "ImagesConfig":
        if isinstance(self.teacher, ShapesTeacher):
            for size in self.image_sizes:
                if size % self.teacher.cell_pixels:
                    raise ValueError(
                        f"image_sizes: {size} must be a multiple of teacher.cell_pixels "
                        f"{self.teacher.cell_pixels}"
                    )
        return self

    @model_validator(mode="after")
    def _one_picture_a_caption(self) -> "ImagesConfig":
        if isinstance(self.teacher, PicturesTeacher) and self.seeds_per_caption != 1:
            raise ValueError(
                f"seeds_per_caption: {self.seeds_per_caption}, but a set of pictures has no "
                "seeds; it gives one picture a caption"
            )
        return self


# --- verdicts ---------------------------------------------------------------------------------


class ShapesJudge(Frozen):
    """The exact detector of the embedded world."""

    kind: Literal["shapes"]


class QwenJudge(Frozen):
    """A Qwen-VL model behind OpenAI-format servers (vLLM)."""

    kind: Literal["qwen_vl"]
    model: str
    revision: str | None = None  # of its weights, for the rows; the server chooses what it serves
    endpoints: Endpoints
    api_key_variable: str | None = None  # of the environment; the run never holds the key
    # A JSON answer with scores and findings, or the first token's probability of yes.
    mode: Literal["scores", "yes_no"] = "scores"
    question_version: int = Field(1, ge=1)  # of the files in pipeline/judges/texts/
    max_pixels: int = Field(512 * 512, ge=56 * 56)
    max_tokens: int = Field(1024, ge=16)  # of an answer in scores
    requests_in_flight: int = Field(64, ge=1, le=4096)
    workers: int = Field(4, ge=1)  # threads that resize and encode pictures
    timeout_seconds: float = Field(120, gt=0)
    patience_seconds: float = Field(300, gt=0)  # for one answer, all retries together
    max_error_rate: float = Field(0.05, ge=0, le=1)  # of pictures without a usable answer


class ClipJudgeConfig(Frozen):
    """CLIPScore and an aesthetic head through open_clip (the extra `clip`)."""

    kind: Literal["clip"]
    model: str = "ViT-L-14"  # open_clip's name
    weights: str  # a .safetensors file: the older files are pickles
    aesthetic: str | None = None  # linear layers over the embedding, .safetensors
    batch_size: int = Field(64, ge=1)


class PluginJudge(Frozen):
    """A judge of one's own: `pipeline.plugins` says which code may be named."""

    kind: Literal["plugin"]
    path: str = Field(pattern=PLUGIN_PATH)  # package.module:Class
    values: PluginValues = {}  # what the class is called with
    version: int = Field(1, ge=1)  # raised by hand when its code judges otherwise

    def __hash__(self) -> int:  # a mapping among the values has none
        return hash(self.model_dump_json())


JudgeConfig = Annotated[
    ShapesJudge | QwenJudge | ClipJudgeConfig | PluginJudge, Field(discriminator="kind")
]


class VerdictsConfig(Frozen):
    judge: JudgeConfig
    # A CLIP's scores as further columns beside the judge's, in a table of their own.
    clip: ClipJudgeConfig | None = None
    min_clip: float = Field(0, ge=0, le=1)  # of CLIPScore, 2.5 times the cosine
    min_aesthetic: float = Field(0, ge=0, le=1)  # a tenth of the aesthetic head's 1 to 10
    min_alignment: float = Field(0.5, ge=0, le=1)  # applied downstream: no picture is redrawn
    min_quality: float = Field(0.5, ge=0, le=1)

    @model_validator(mode="after")
    def _thresholds_have_scores(self) -> "VerdictsConfig":
        if self.min_clip and not self.clip:
            raise ValueError("min_clip: needs verdicts.clip, whose scores it cuts")
        if self.min_aesthetic and not (self.clip and self.clip.aesthetic):
            raise ValueError("min_aesthetic: needs verdicts.clip.aesthetic, the head that scores")
        return self


# --- features ---------------------------------------------------------------------------------


class FeaturesConfig(Frozen):
    # Folder or hub repository of an AutoencoderKL or AutoencoderDC; here and for the text encoder
    # also package.module:Class of one's own (`pipeline.plugins`).
    autoencoder: str
    autoencoder_subfolder: str = ""  # "vae" in a repository that holds a whole pipeline
    text_encoder: str  # folder or hub repository of a T5 or T5Gemma with its tokenizer
    autoencoder_revision: str | None = None
    text_encoder_revision: str | None = None
    image_sizes: tuple[int, ...] = Field(min_length=1)
    text_length: int = Field(128, ge=1)
    batch_size: int = Field(64, ge=1)
    dtype: Literal["bfloat16", "float32"] = "float32"
    # moments: mean and log-variance, from which training draws; means: half the room, and all that
    # an autoencoder without a posterior (AutoencoderDC) has.
    latents: Literal["moments", "means"] = "moments"
    text_states: Literal["bfloat16", "int8"] = "bfloat16"  # int8: half the room, about 0.6 % off
    # full: every caption is encoded at text_length; longest: beside others of about its length.
    text_padding: Literal["full", "longest"] = "full"
    workers: int = Field(4, ge=1)  # threads that decode and resize pictures beside the encoder
    # A vision transformer for `student.model.repa`: a table of its features beside each size's.
    alignment_encoder: str | None = None  # folder or hub repository, such as of DINOv2
    alignment_encoder_revision: str | None = None


# --- training ---------------------------------------------------------------------------------


class OptimizerConfig(Frozen):
    # muon: the matrices inside blocks by Muon, the rest by AdamW; one learning rate serves both,
    # since Muon's updates are scaled to AdamW's size (arXiv 2502.16982).
    kind: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(0.02, ge=0)
    warmup_steps: int = Field(0, ge=0)
    decay: Literal["constant", "cosine"] = "constant"  # after warm-up
    max_grad_norm: float = Field(3.0, gt=0)
    ema_decay: float = Field(0.9999, ge=0, lt=1)  # warmed up: min(decay, (1 + n) / (10 + n))


class LoopConfig(Frozen):
    """How a training is run. What it learns is the same whatever these values are, to rounding."""

    num_processes: int = Field(1, ge=1)
    launcher: Literal["torchrun", "ray"] = "torchrun"  # ray: processes on any node of `engine.ray`
    strategy: Literal["ddp", "fsdp2"] = "ddp"  # fsdp2: weights, EMA and optimizer state in shards
    accumulation: int = Field(1, ge=1)  # parts in which a process takes its share of a batch
    checkpoint_activations: bool = False  # recompute blocks in the backward pass: less memory
    checkpoint_every: int = Field(1000, ge=1)  # steps
    keep_last: int = Field(1, ge=1)  # states to keep, the newest ones
    keep_every: int = Field(0, ge=0)  # steps; states that are kept for good. 0: none
    log_every: int = Field(50, ge=1)  # steps
    max_skipped: int = Field(10, ge=0)  # steps in a row whose loss or gradient is not finite
    tracker: Literal["auto", "tensorboard", "none"] = "auto"  # auto: where it is installed
    peak_tflops: float | None = Field(None, gt=0)  # of one device, for MFU; None: MFU is not told
    table_memory_gib: float = Field(8.0, ge=0)  # larger tables are read row by row, not held
    # Threads that make the next batches ready beside the step; 0: each when it is its turn. None:
    # one beside a GPU, none on a CPU, whose cores the step needs itself.
    prefetch_threads: int | None = Field(None, ge=0, le=4)

    @property
    def parts(self) -> int:
        """Equal parts of a global batch: each is one forward pass of one process."""
        return self.num_processes * self.accumulation

    @model_validator(mode="after")
    def _shards_need_processes(self) -> "LoopConfig":
        if self.strategy == "fsdp2" and self.num_processes < 2:
            raise ValueError(
                "strategy: fsdp2 shares the weights out; num_processes must be 2 or up"
            )
        return self


def _divides(place: str, batch_size: int, loop: LoopConfig) -> None:
    if batch_size % loop.parts:
        raise ValueError(
            f"{place}: {batch_size} is not a multiple of {loop.parts} (num_processes "
            f"{loop.num_processes} x accumulation {loop.accumulation})"
        )


class TrainingPhase(Frozen):
    """One resolution of the student's training, in the order they are run."""

    image_size: int = Field(ge=16)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    optimizer: OptimizerConfig


class MaskingConfig(Frozen):
    """How much of a picture is hidden. `per_sample` draws a ratio a picture, not a batch."""

    distribution: Literal["truncated_normal", "uniform", "cosine"] = "truncated_normal"
    min_ratio: float = Field(0.7, ge=0, le=1)
    per_sample: bool = False


class SubsetConfig(Frozen):
    """A part of the captions to learn from; what was drawn of the others stays as it is.

    One order of all captions is cut off, so a smaller part lies within a larger one.
    """

    share: float | None = Field(None, gt=0, le=1)  # of the captions that have an accepted picture
    num_captions: int | None = Field(None, ge=1)
    # random: by a hash; diverse: all clusters filled evenly; narrow: one cluster after another.
    choice: Literal["random", "diverse", "narrow"] = "random"
    clusters: int = Field(200, ge=1)  # diverse, narrow
    embedding: EmbeddingConfig = HashedEmbedding(kind="hashed")
    seed: int = 0

    @model_validator(mode="after")
    def _says_how_many(self) -> "SubsetConfig":
        if (self.share is None) == (self.num_captions is None):
            raise ValueError("give either share, of 1, or num_captions")
        return self


class StudentConfig(LoopConfig):
    model: ModelConfig
    # A checkpoint folder to start from: weights, and the average where it holds both.
    start: str | None = None
    masking: MaskingConfig = MaskingConfig()
    phases: tuple[TrainingPhase, ...] = Field(min_length=1)
    subset: SubsetConfig | None = None  # None: every caption
    # Shares of the pictures shown by what they ask for (`pipeline.tasks`); {}: as the data has
    # them. A task without a share is not shown.
    task_shares: dict[str, Annotated[float, Field(ge=0)]] = {}
    # End after so many steps of all phases together, the schedules as they are; None: at their end.
    until: int | None = Field(None, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"  # autocast; weights stay float32
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
    compile: bool = False
    sample_every: int = Field(2000, ge=1)  # steps between sample sheets and curve points
    # So many neighbouring batches share their rows out by text length: less padding. 0: none.
    text_buckets: int = Field(0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _values_fit(self) -> "StudentConfig":
        for index, phase in enumerate(self.phases):
            _divides(f"phases.{index}.batch_size", phase.batch_size, self)
        total = sum(phase.steps for phase in self.phases)
        if self.until is not None and self.until > total:
            raise ValueError(f"until: {self.until}, but the phases have {total} steps together")
        if self.task_shares and not sum(self.task_shares.values()):
            raise ValueError("task_shares: all of them are 0")
        return self

    def ends(self) -> list[int]:
        """The last step of each phase that is trained; a phase beyond `until` is left out."""
        left = self.until or sum(phase.steps for phase in self.phases)
        found = []
        for phase in self.phases:
            if left > 0:
                found.append(min(phase.steps, left))
            left -= phase.steps
        return found

    @property
    def trained(self) -> tuple[TrainingPhase, ...]:
        """The phases as far as they are trained."""
        ends = zip(self.phases, self.ends(), strict=False)
        return tuple(phase.model_copy(update={"steps": end}) for phase, end in ends)


class SamplingConfig(lightgen_model.config.SamplingConfig):
    batch_size: int = Field(64, ge=1)  # pictures drawn at once; no picture depends on it
    precision: Literal["float32", "bfloat16"] = "float32"  # of the student's weights; tokens: f32


# The files of pipeline/pair_builders/.
PairKind = Literal[
    "teacher_over_student", "best_over_worst", "same_seed", "good_over_bad", "every_good_over_bad"
]


class PreferencesConfig(Frozen):
    image_size: int = Field(ge=16)
    num_captions: int = Field(ge=1)
    samples_per_caption: int = Field(4, ge=1)
    pairs: tuple[PairKind, ...] = Field(("teacher_over_student", "best_over_worst"), min_length=1)
    min_margin: float = Field(0.1, ge=0)  # score difference below which two pictures are a tie
    # Who scores, and from where on a sample is good; None: the run's verdicts.
    scorer: VerdictsConfig | None = None
    alignment_weight: float = Field(0.5, ge=0, le=1)  # of a score; the rest is quality's
    sampling: SamplingConfig
    rows_per_shard: int = Field(250, ge=1)  # captions a shard
    seed: int = 0
    seed_per_round: int = Field(1, ge=0)  # added for each later round; 0: the same captions again
    # Shares of the captions by what they ask for (`pipeline.tasks`); {}: as the data has them.
    task_shares: dict[str, Annotated[float, Field(ge=0)]] = {}

    @model_validator(mode="after")
    def _asks_for_something(self) -> "PreferencesConfig":
        if self.task_shares and not sum(self.task_shares.values()):
            raise ValueError("task_shares: all of them are 0")
        return self

    def __hash__(self) -> int:  # a mapping among the values has none
        return hash(self.model_dump_json())


class DpoConfig(LoopConfig):
    beta: float = Field(5000.0, gt=0)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)  # pairs
    optimizer: OptimizerConfig
    log_every: int = Field(10, ge=1)
    checkpoint_every: int = Field(200, ge=1)
    seed: int = 0
    loss: Literal["dpo", "ipo", "kto", "sft"] = "dpo"  # sft: learn winners, mind no loser
    anchor: float = Field(0.0, ge=0)  # weight of the winners' own error beside the preference
    # noise: a flow head's errors as those of the noise, (1 - t)^2, for which DPO was derived.
    weighting: Literal["as_trained", "noise"] = "as_trained"
    beta_end: float | None = Field(None, gt=0)  # beta moves there by equal factors a step
    balance: Literal["none", "kind", "task"] = "none"  # equal shares of comparisons, or of tasks
    # 0: new masks, times and noise every step; n: one of n that belong to the pair.
    draws_per_pair: int = Field(0, ge=0)
    # table: measured once for every pair and draw, so that training holds one network.
    reference_errors: Literal["live", "table"] = "live"
    watch_every: int = Field(0, ge=0)  # steps between looks at held-out captions; 0: never
    watch_captions: int = Field(96, ge=1)
    keep: Literal["last", "best"] = "last"  # best: of all looks, by the scorer
    # Stop where the winners' error is this share above the reference's; None: never.
    max_winner_rise: float | None = Field(None, gt=0)
    # Sample, score, pair, train: so many times, each from the checkpoint of the one before.
    rounds: int = Field(1, ge=1)
    reference: Literal["last_round", "student"] = "last_round"  # of a round after the first

    @model_validator(mode="after")
    def _values_fit(self) -> "DpoConfig":
        _divides("batch_size", self.batch_size, self)
        if self.reference_errors == "table" and not self.draws_per_pair:
            raise ValueError(
                "reference_errors: table needs draws_per_pair of 1 or more: draws that are new "
                "every step cannot be measured before"
            )
        if self.keep == "best" and not self.watch_every:
            raise ValueError("keep: best needs watch_every, the steps between looks")
        return self


# --- evaluation -------------------------------------------------------------------------------


class ShapesEvaluator(Frozen):
    kind: Literal["shapes"]
    prompts_per_task: int = Field(60, ge=1)
    images_per_prompt: int = Field(4, ge=1)


class GenEvalEvaluator(Frozen):
    """GenEval with transformers' Mask2Former and open_clip (the extra `clip`)."""

    kind: Literal["geneval"]
    prompts: str  # evaluation_metadata.jsonl
    # JSON lines of prompt and rewritten: these are drawn instead, and reported apart.
    rewritten: str | None = None
    detector: str  # folder or hub repository of a Mask2Former with COCO's 80 classes
    detector_revision: str | None = None
    clip: str  # folder or hub repository in open_clip's layout
    clip_revision: str | None = None
    images_per_prompt: int = Field(4, ge=1)
    batch_size: int = Field(8, ge=1)  # pictures that the detector sees at once


EvaluatorConfig = Annotated[ShapesEvaluator | GenEvalEvaluator, Field(discriminator="kind")]


class FidelityConfig(Frozen):
    """FID, CMMD and CLIP score of the evaluators' pictures; each where its weights are given."""

    reference: str | None = None  # folder of pictures: FID and CMMD
    inception: str | None = None  # torch-fidelity's weights (the extra `fidelity`): FID
    cmmd: str | None = None  # folder or hub repository of a CLIP in open_clip's layout, of 336 px
    clip_score: str | None = None  # likewise
    resize: Literal["tensorflow", "clean"] = "tensorflow"  # before Inception
    size: int | None = Field(None, ge=16)  # both sets as middle squares of so many pixels

    @model_validator(mode="after")
    def _asks_for_something(self) -> "FidelityConfig":
        if not (self.inception or self.cmmd or self.clip_score):
            raise ValueError("nothing to measure: give inception, cmmd or clip_score")
        if (self.inception or self.cmmd) and self.reference is None:
            raise ValueError("reference: FID and CMMD need a folder to compare with")
        return self


class EvaluationConfig(Frozen):
    evaluators: tuple[EvaluatorConfig, ...] = Field(min_length=1)
    image_size: int = Field(ge=16)
    sampling: SamplingConfig
    seed: int = 42
    fidelity: FidelityConfig | None = None


# --- the engine -------------------------------------------------------------------------------


# Captions are harvested in one pass over their sources, so their shards stay with the flow.
RayStage = Literal["images", "verdicts", "features", "student", "preferences", "dpo", "evaluate"]


class NodeShare(Frozen):
    """What one shard of a stage, or one process of a training, takes of a Ray node."""

    num_cpus: float = Field(1, ge=0)
    num_gpus: float | None = Field(None, ge=0)  # None: 1 where the stage works on `device: cuda`
    # By the names that nodes were started with: {"a100": 1}
    resources: dict[str, Annotated[float, Field(gt=0)]] = {}


class RayConfig(Frozen):
    """A Ray cluster that is running already (infra/README.md starts one)."""

    # auto: the one that this machine is a node of; host:port; or ray://host:10001 from outside.
    address: str = Field("auto", pattern=r"^(auto|(ray://)?[^\s/]+:\d+)$")
    # Of a stage that is not named here a shard takes one CPU, and one GPU where it works on one.
    stages: dict[RayStage, NodeShare] = {}
    retries: int = Field(3, ge=0)  # of a shard or a training whose node or process died
    # For a node that fits, while none does: after one died, or where others took all there is.
    wait_seconds: float = Field(600, gt=0)
    # Then a training goes on with fewer processes, at least so many, each with more parts of a
    # batch; None: with all or not at all. It is the same training, to rounding.
    min_processes: int | None = Field(None, ge=1)

    def __hash__(self) -> int:  # a mapping among the values has none
        return hash(self.model_dump_json())


class EngineConfig(Frozen):
    """How shards are made, and where. No value here changes a row."""

    task_runner: Literal["threads", "ray"] = "threads"  # ray: on the nodes of a cluster
    ray: RayConfig = RayConfig()
    threads: int = Field(1, ge=1)  # shards made at once in a process, where a stage's parts allow
    retries: int = Field(2, ge=0)  # further tries of a shard that failed
    retry_seconds: float = Field(10, ge=0)  # before the second try; doubled for each one after it
    # Shards that a stage may lack and still be committed; the next run tries them again.
    max_quarantined: int = Field(0, ge=0)
    failures_in_a_row: int = Field(5, ge=1)  # then the cause is no single shard: the stage ends
    # A global concurrency limit of the Prefect server, of which a shard on the device holds a slot.
    slots: str | None = None


# --- the run ----------------------------------------------------------------------------------


class RunConfig(Frozen):
    """All values of a run. `name` is the deployment's second half: `distill/<name>`."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    # Of tables, checkpoints and reports: a folder, relative to the repository, or a bucket.
    root: Annotated[str, AfterValidator(check_root)]
    device: Literal["cpu", "cuda"] = "cpu"
    note: str = ""  # what a reader of its report must know before anything else
    plan: PlanConfig = PlanConfig()  # what it is thought to cost; changes nothing that is made
    engine: EngineConfig = EngineConfig()  # what makes it, and where; changes nothing either
    captions: CaptionsConfig
    # A run may end early: `real` only harvests captions.
    images: ImagesConfig | None = None
    verdicts: VerdictsConfig | None = None
    features: FeaturesConfig | None = None
    student: StudentConfig | None = None
    preferences: PreferencesConfig | None = None
    dpo: DpoConfig | None = None
    evaluation: EvaluationConfig | None = None

    @model_validator(mode="after")
    def _stages_agree(self) -> "RunConfig":
        stages = ["images", "verdicts", "features", "student", "preferences", "dpo", "evaluation"]
        given = [getattr(self, stage) is not None for stage in stages]
        if given != sorted(given, reverse=True):
            missing = stages[given.index(False)]
            raise ValueError(f"{missing}: missing, though a later stage is configured")
        if self.features and self.images:
            _features_fit(self.features, self.images)
        if self.student and self.features:
            _student_fits(self.student, self.features)
        if self.student and self.preferences:
            _sampling_fits("preferences", self.preferences, self.student)
        if self.preferences and self.features:
            _has_features("preferences.image_size", self.preferences.image_size, self.features)
        if self.preferences and self.images:
            _pairs_fit(self.preferences, self.images)
        if self.student and self.evaluation:
            _sampling_fits("evaluation", self.evaluation, self.student)
        return self


def _features_fit(features: FeaturesConfig, images: ImagesConfig) -> None:
    largest = max(images.image_sizes)
    for size in features.image_sizes:
        if size > largest:
            raise ValueError(
                f"features.image_sizes: {size} is larger than the largest picture drawn, {largest}"
            )


def _student_fits(student: StudentConfig, features: FeaturesConfig) -> None:
    for index, phase in enumerate(student.phases):
        _grid(f"student.phases.{index}.image_size", phase.image_size, student)
        _has_features(f"student.phases.{index}.image_size", phase.image_size, features)
    if student.model.repa and not features.alignment_encoder:
        raise ValueError(
            "student.model.repa: needs features.alignment_encoder, the vision model to align with"
        )
    if features.text_length != student.model.text_length:
        raise ValueError(
            f"student.model.text_length: {student.model.text_length} differs from "
            f"features.text_length {features.text_length}"
        )


def _pairs_fit(preferences: PreferencesConfig, images: ImagesConfig) -> None:
    if "same_seed" in preferences.pairs and isinstance(images.teacher, PicturesTeacher):
        raise ValueError(
            "preferences.pairs: same_seed needs a teacher that draws from seeds; images.teacher is "
            "a set of pictures"
        )


def _grid(place: str, image_size: int, student: StudentConfig) -> int:
    """Tokens along a side; a size that tokens do not fill is named with its place."""
    try:
        return student.model.grid(image_size)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _has_features(place: str, image_size: int, features: FeaturesConfig) -> None:
    if image_size not in features.image_sizes:
        raise ValueError(
            f"{place}: {image_size} has no features; "
            f"features.image_sizes are {list(features.image_sizes)}"
        )


def _sampling_fits(
    stage: str, config: PreferencesConfig | EvaluationConfig, student: StudentConfig
) -> None:
    tokens = _grid(f"{stage}.image_size", config.image_size, student) ** 2
    if config.sampling.num_iterations > tokens:
        raise ValueError(
            f"{stage}.sampling.num_iterations: {config.sampling.num_iterations} steps for "
            f"{tokens} tokens of a {config.image_size} px picture; at most one step a token"
        )
    try:
        config.sampling.check(student.model.head, tokens)
    except ValueError as error:
        raise ValueError(f"{stage}.sampling.{error}") from None


def load_run(run: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a named run (`tiny`) or a YAML file and change single values by dotted path."""
    path = Path(run) if str(run).endswith((".yaml", ".yml")) else RUNS / f"{run}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in RUNS.glob("*.yaml"))
        raise ValueError(f"run {str(run)!r} is not there: {path} (known runs: {known})")
    try:
        # `${NAME:-default}` is the environment's value: data lies elsewhere on each machine.
        text = _VARIABLE.sub(partial(_taken_in, path), path.read_text("utf-8"))
        values = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of stages, not {type(values).__name__}")
    values = _unshared(values)
    for dotted, value in (overrides or {}).items():
        _set(values, dotted, value)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(_sentences(path, error)) from error


def _taken_in(path: Path, found: re.Match[str]) -> str:
    if is_secret(found[1]):
        raise ValueError(
            f"{path.name}: ${{{found[1]}}} is a secret by its name, and a run's values are kept "
            "for everyone to see; name the variable itself, as in verdicts.judge.api_key_variable"
        )
    return os.environ.get(found[1]) or found[2]


def _unshared(value: Any) -> Any:
    """A copy in which a YAML anchor's uses are apart: an override changes one of them."""
    if isinstance(value, dict):
        return {key: _unshared(below) for key, below in value.items()}
    return [_unshared(below) for below in value] if isinstance(value, list) else value


def _set(values: Any, dotted: str, value: Any) -> None:
    """Change one value in place; the path must lead to something that the run can have."""
    *way, last = dotted.split(".")
    place = values
    for step in way:
        if isinstance(place, list) and step.isdigit() and int(step) < len(place):
            place = place[int(step)]
        elif isinstance(place, dict) and isinstance(place.get(step), dict | list):
            place = place[step]
        else:
            known = sorted(place) if isinstance(place, dict) else list(range(len(place)))
            close = difflib.get_close_matches(step, [str(k) for k in known], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"override {dotted!r}: no {step!r} here, only {known}{hint}")
    if isinstance(place, list):
        if not last.isdigit() or int(last) >= len(place):
            raise ValueError(f"override {dotted!r}: no entry {last!r}, there are {len(place)}")
        place[int(last)] = value
    else:
        place[last] = value


def _sentences(path: Path, error: ValidationError) -> str:
    lines = [f"{path.name}: {error.error_count()} wrong value(s)"]
    for entry in error.errors():
        place = ".".join(str(step) for step in entry["loc"]) or "run"
        given = entry["input"]
        shown = f" (got {given!r})" if isinstance(given, str | int | float | bool) else ""
        shown = masked(shown)
        lines.append(f"  {place}: {entry['msg']}{shown}{_allowed(entry['type'], entry['loc'])}")
    return "\n".join(lines)


def _allowed(kind: str, place: tuple[int | str, ...]) -> str:
    """For a key that does not exist: the nearest one that does, and all of them."""
    if kind != "extra_forbidden":
        return ""
    schema = RunConfig.model_json_schema()
    nodes = [schema]
    for step in place[:-1]:
        # A union's member is a step of its own in pydantic's place; it selects, and goes no deeper.
        deeper = [below for node in nodes for below in _below(schema, node, step)]
        tagged = [n for n in nodes if n.get("properties", {}).get("kind", {}).get("const") == step]
        nodes = deeper or tagged or nodes
    known = sorted({name for node in nodes for name in node.get("properties", {})})
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"; {hint}known here: {', '.join(known)}"


def _below(schema: dict[str, Any], node: dict[str, Any], step: int | str) -> list[dict[str, Any]]:
    """The mappings that a JSON schema's node can hold under `step`, references followed."""
    found: list[dict[str, Any]] = []
    todo = [
        node.get("items", {}) if isinstance(step, int) else node.get("properties", {}).get(step)
    ]
    while todo:
        part = todo.pop() or {}
        todo += [*part.get("anyOf", []), *part.get("oneOf", [])]
        if "$ref" in part:
            todo.append(schema["$defs"][part["$ref"].rsplit("/", 1)[1]])
        if "properties" in part or "items" in part:
            found.append(part)
    return found
