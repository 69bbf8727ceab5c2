"""Where a trained stage keeps its checkpoint, and how a later run finds it again.

In:    a stage's values and the contents of its inputs, by fingerprint.
Out:   <root>/checkpoints/<stage>-<fingerprint>/: logs and resumable state while it trains, `final/`
       with the weights, `run.yaml` with the run's values, and `manifest.json`, written last.
Rerun: a folder with a manifest is finished; one without goes on from its state.

Light: neither torch nor a model library is imported.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import LoopConfig, RunConfig
from pipeline.description import write_whole
from pipeline.roots import near, root_of, send
from pipeline.seals import read_sealed, sha256_of, write_sealed
from pipeline.tables import Manifest

FINAL, MANIFEST, RUN = "final", "manifest.json", "run.yaml"
STATED = ("weights",)  # of the manifest
CURVE, SAMPLES = "curve.jsonl", "samples"
CURVE_PROMPTS = 24  # prompts a task behind a point of the learning curve


@dataclass(frozen=True)
class TrainingFolder:
    root: Path
    stage: str
    fingerprint: str

    @property
    def relative(self) -> str:
        return f"checkpoints/{self.stage}-{self.fingerprint}"

    @property
    def kept(self) -> Path:
        """Where it lies for good."""
        return self.root / self.relative

    @property
    def path(self) -> Path:
        """Where its files are on this disk; of a bucket near it."""
        return near(self.kept)

    @property
    def final(self) -> Path:
        return self.path / FINAL

    def ending(self, until: int | None, steps: int) -> "TrainingFolder":
        """The folder of the same training where it ends after `until` of its steps."""
        if until is None or until == steps:
            return self
        return replace(self, fingerprint=f"{self.fingerprint}.{until}")

    def alike(self) -> list[Path]:
        """Folders of the same training that end elsewhere."""
        whole = f"{self.stage}-{self.fingerprint.partition('.')[0]}"
        found = [self.path.with_name(whole), *self.path.parent.glob(f"{whole}.*")]
        return [path for path in sorted(found) if path != self.path and path.is_dir()]

    def find(self, folders: Mapping[str, str]) -> Manifest | None:
        """The manifest of a finished training, its checkpoints by name, or None."""
        path = self.kept / MANIFEST
        if not path.is_file():
            return None
        stated = read_sealed(path, STATED)
        if stated is None:
            raise ValueError(
                f"{path} is damaged: python -m pipeline.verification --root {self.root} moves it "
                "aside, and the next run ends this training again"
            )
        checkpoints = {name: f"{self.relative}/{folder}" for name, folder in folders.items()}
        return Manifest(self.stage, stated["weights"], {}, checkpoints)

    def finish(self, config: RunConfig) -> None:
        """Keep the run's values beside the weights, then say that `final/` is whole."""
        values = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        write_whole(self.path / RUN, values.encode())
        weights = sha256_of(self.final / "model.safetensors")
        send(self.path)
        write_sealed(self.kept / MANIFEST, {"weights": weights})


def training_folder(
    config: RunConfig, stage: str, version: int, values: object, inputs: Mapping[str, str]
) -> TrainingFolder:
    text = json.dumps([stage, version, values, dict(inputs)], sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    return TrainingFolder(root_of(config.root), stage, fingerprint)


def subprocess_command(
    module: str, loop: LoopConfig, config_file: Path, upstream_file: Path
) -> list[str]:
    """`python -m pipeline.<module>`, through torchrun or Ray Train when it is several processes."""
    files = ["--config", str(config_file), "--upstream", str(upstream_file)]
    python = [sys.executable, "-m"]
    if loop.launcher == "ray":
        return [*python, "pipeline.cluster_training", "--program", module, *files]
    if loop.num_processes > 1:
        python += ["torch.distributed.run", "--nproc-per-node", str(loop.num_processes), "-m"]
    return [*python, f"pipeline.{module}", *files]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Whole rows of a JSON-lines log; a torn last line (a kill while writing) is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


class Log:
    """A JSON-lines file of a training. Rows beyond where it resumes are dropped."""

    def __init__(self, path: Path, first: int, key: str = "step") -> None:
        self.path = path
        kept = [row for row in read_rows(path) if row[key] <= first]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")

    def write(self, row: Mapping[str, object]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
