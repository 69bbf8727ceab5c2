"""A run small enough for a test, and a walk through its table stages."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from pipeline import alignment, captions, features, images, ledger, student, verdicts
from pipeline.buckets import BucketPath
from pipeline.config import RunConfig, load_run
from pipeline.description import RECORD, description_folder
from pipeline.roots import root_of
from pipeline.tables import Manifest
from pipeline.upstream import STAGES

MODELS = Path(__file__).parent.parent.parent / "infra" / "models" / "shapes"
SAMPLING = {"num_iterations": 2, "head_steps": 2, "guidance": 2.0, "batch_size": 16}
DATA_STAGES = (captions, images, verdicts, features)

VALUES: dict[str, Any] = {
    "name": "debug",
    "root": "",
    "captions": {"sources": [{"kind": "shapes", "num_captions": 60}], "rows_per_shard": 25},
    "images": {
        "teacher": {"kind": "shapes", "error_rate": 0.3},
        "image_sizes": [64, 128],
        "max_captions": {128: 10},
    },
    "verdicts": {"judge": {"kind": "shapes"}},
    "features": {
        "autoencoder": str(MODELS / "autoencoder"),
        "text_encoder": str(MODELS / "text_encoder"),
        "image_sizes": [64, 128],
        "text_length": 20,
        "batch_size": 16,
    },
    "student": {
        "model": {
            "base_image_size": 64,
            "width": 32,
            "num_heads": 4,
            "encoder_depth": 1,
            "decoder_depth": 1,
            "cross_depth": 1,
            "aligner_depth": 1,
            "text_width": 128,
            "text_length": 20,
            "attend_padding": False,
            "dropout": 0.0,
            "head": {"kind": "flow", "depth": 1, "width": 32},
        },
        "phases": [
            {
                "image_size": 64,
                "steps": 2,
                "batch_size": 4,
                "optimizer": {"learning_rate": 0.001},
            }
        ],
    },
    "preferences": {
        "image_size": 64,
        "num_captions": 12,
        "samples_per_caption": 2,
        "sampling": SAMPLING,
        "rows_per_shard": 5,
    },
    "dpo": {"steps": 2, "batch_size": 4, "optimizer": {"learning_rate": 0.001}},
    "evaluation": {
        "evaluators": [{"kind": "shapes", "prompts_per_task": 3, "images_per_prompt": 2}],
        "image_size": 64,
        "sampling": SAMPLING,
    },
}

# What the tiny run was when it was measured (infra/measurements.md, "Plan and cost").
MEASURED_TINY: dict[str, Any] = {
    "student.phases": [
        {"image_size": px, "steps": steps, "batch_size": n, "optimizer": {"learning_rate": 0.001}}
        for px, steps, n in ((64, 2300, 128), (128, 60, 32), (64, 200, 128))
    ],
    "student.sample_every": 460,
    "student.checkpoint_every": 200,
    "preferences.num_captions": 1500,
    "dpo.steps": 200,
    "dpo.batch_size": 64,
}


@pytest.fixture(scope="session")
def measured_tiny() -> RunConfig:
    return load_run("tiny", MEASURED_TINY)


BuildRun = Callable[..., RunConfig]


@pytest.fixture
def debug_run(tmp_path: Path) -> BuildRun:
    """`debug_run({"captions.sources.0.num_captions": 9})`: the run in a folder of the test."""

    def build(overrides: Mapping[str, Any] | None = None, root: Path | None = None) -> RunConfig:
        path = tmp_path / "debug.yaml"
        path.write_text(yaml.safe_dump(VALUES | {"root": str(root or tmp_path / "artifacts")}))
        return load_run(path, overrides)

    return build


def make_stage(
    stage: ModuleType, config: RunConfig, upstream: Mapping[str, Manifest]
) -> tuple[Manifest, list[str]]:
    """The manifest of a stage, and the works that made something."""
    made: list[str] = []
    shards = [
        shard
        for work in stage.plan(config, upstream)
        for shard in stage.make(
            config, upstream, work, lambda rows, name=work.name: made.append(name)
        )
    ]
    return stage.commit(config, upstream, shards), sorted(set(made))


@pytest.fixture
def make() -> Callable[..., tuple[Manifest, list[str]]]:
    return make_stage


@pytest.fixture(scope="session")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a run's data stages, made once a session for each config."""
    made: dict[str, Path] = {}

    def root_of(config: RunConfig, last: str) -> Path:
        key = config.model_dump_json(exclude={"root"}) + last
        if key not in made:
            made[key] = tmp_path_factory.mktemp("walked")
            _through(config.model_copy(update={"root": str(made[key])}), last)
        return made[key]

    return root_of


def _through(config: RunConfig, last: str) -> dict[str, Manifest]:
    upstream: dict[str, Manifest] = {}
    for stage in DATA_STAGES:
        upstream[stage.STAGE], _ = make_stage(stage, config, upstream)
        if last == stage.STAGE:
            break
    return upstream


@pytest.fixture
def walk(walked: Callable[..., Path]) -> Callable[..., dict[str, Manifest]]:
    """Makes captions, images, verdicts and features, up to and with the stage named."""

    def through(config: RunConfig, last: str = "features") -> dict[str, Manifest]:
        bare = not isinstance(root_of(config.root), BucketPath) and not Path(config.root).exists()
        if bare:  # where tables are already, growth is what is tested
            shutil.copytree(walked(config, last), config.root)
        return _through(config, last)

    return through


Made = dict[str, list[str]]  # stage to what of it was made


def run_whole(config: RunConfig, last: str = "evaluate") -> tuple[dict[str, Manifest], Made]:
    """All stages as the flows run them, but for the trainings: found or made, shown, entered."""
    manifests: dict[str, Manifest] = {}
    made: Made = {}
    for stage in STAGES:
        found = stage.find(config, manifests)
        if found is None and stage in (student, alignment):
            found, made[stage.STAGE] = pretend(config, manifests, stage), ["weights"]
        elif found is None:
            found, made[stage.STAGE] = make_stage(stage, config, manifests)
        folder = description_folder(root_of(config.root), stage.STAGE, found.content)
        if not (folder / RECORD).is_file():
            stage.describe(config, manifests, found).save(folder)
        manifests[stage.STAGE] = found
        ledger.enter(config, manifests, [stage.STAGE] if stage.STAGE in made else [])
        if last == stage.STAGE:
            break
    return manifests, made


@pytest.fixture(scope="session")
def whole_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a whole debug run; copy it before you change it."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "debug.yaml").write_text(yaml.safe_dump(VALUES | {"root": str(folder / "root")}))
    run_whole(load_run(folder / "debug.yaml"))
    return folder / "root"


@pytest.fixture
def whole(whole_root: Path, debug_run: BuildRun) -> RunConfig:
    """A whole debug run in a folder of the test."""
    config = debug_run()
    shutil.copytree(whole_root, config.root)
    return config


def pretend(
    config: RunConfig, upstream: Mapping[str, Manifest], stage: ModuleType = student
) -> Manifest:
    """Leave networks of random weights where a training would leave its own."""
    import torch

    from lightgen_model import checkpoint
    from lightgen_model.model import LightGen

    assert config.student is not None
    place = stage.folder(config, upstream)
    names = ["final"] if stage is alignment else [student.UNTRAINED, "final"]
    for number, name in enumerate(names, 100 if stage is alignment else 0):
        generator = torch.Generator().manual_seed(config.student.seed + number)
        weights = LightGen(config.student.model).init_weights(generator).state_dict()
        checkpoint.save(place.path / name, config.student.model, weights, {})
    place.finish(config)
    found = stage.find(config, upstream)
    assert isinstance(found, Manifest)
    return found


@pytest.fixture
def train() -> Callable[..., Manifest]:
    return pretend
