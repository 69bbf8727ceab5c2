"""Training folders: named by what they are made from, finished when they say so."""

import hashlib
import sys
from pathlib import Path

import pytest

from pipeline.checkpoints import (
    MANIFEST,
    RUN,
    Log,
    TrainingFolder,
    read_rows,
    subprocess_command,
    training_folder,
)
from pipeline.config import LoopConfig, load_run


def test_a_training_is_finished_when_its_manifest_is_there(tmp_path: Path, debug_run) -> None:
    place = TrainingFolder(tmp_path, "student", "ab12")
    place.final.mkdir(parents=True)
    (place.final / "model.safetensors").write_bytes(b"weights")
    assert place.find({"student": "final"}) is None
    config = debug_run()
    place.finish(config)
    found = place.find({"student": "final"})
    assert found is not None
    assert found.content == hashlib.sha256(b"weights").hexdigest()
    assert found.checkpoints == {"student": "checkpoints/student-ab12/final"}
    names = {path.name for path in place.path.iterdir() if path.is_file()}
    assert names == {MANIFEST, RUN}
    assert load_run(place.path / RUN) == config


def test_other_values_inputs_or_code_are_another_folder(debug_run) -> None:
    config = debug_run()
    given = [
        training_folder(config, "dpo", 1, {"beta": 1}, {"student": "a"}),
        training_folder(config, "dpo", 1, {"beta": 2}, {"student": "a"}),
        training_folder(config, "dpo", 1, {"beta": 1}, {"student": "b"}),
        training_folder(config, "dpo", 2, {"beta": 1}, {"student": "a"}),
        training_folder(config, "student", 1, {"beta": 1}, {"student": "a"}),
    ]
    assert len({place.path for place in given}) == len(given)
    assert training_folder(config, "dpo", 1, {"beta": 1}, {"student": "a"}) == given[0]


@pytest.mark.parametrize("torn", ['{"step": 3', '{"step": 3}', '{"st'])
def test_a_torn_last_line_is_left_out_and_written_anew(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n' + torn)
    assert read_rows(path) == [{"step": 1}, {"step": 2}]
    Log(path, first=2).write({"step": 3, "loss": 0.5})
    assert read_rows(path) == [{"step": 1}, {"step": 2}, {"step": 3, "loss": 0.5}]


def test_rows_beyond_the_saved_step_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path, first=0)
    for step in (2, 4, 6):
        log.write({"step": step})
    Log(path, first=4)
    assert read_rows(path) == [{"step": 2}, {"step": 4}]
    assert read_rows(tmp_path / "nothing.jsonl") == []


def test_a_cluster_starts_the_same_program_wherever_its_processes_are() -> None:
    loop = LoopConfig(num_processes=4, launcher="ray")
    assert subprocess_command("aligning", loop, Path("run.yaml"), Path("above.json")) == [
        *(sys.executable, "-m", "pipeline.cluster_training", "--program", "aligning"),
        *("--config", "run.yaml", "--upstream", "above.json"),
    ]


def test_several_processes_go_through_torchrun() -> None:
    run, above = Path("run.yaml"), Path("upstream.json")
    files = ["--config", "run.yaml", "--upstream", "upstream.json"]
    one = subprocess_command("pretraining", LoopConfig(), run, above)
    assert one == [sys.executable, "-m", "pipeline.pretraining", *files]
    assert subprocess_command("pretraining", LoopConfig(num_processes=4), run, above) == [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4"),
        *("-m", "pipeline.pretraining", *files),
    ]
