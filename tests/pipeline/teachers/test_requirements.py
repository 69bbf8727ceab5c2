import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from pipeline.config import DiffusersTeacher
from pipeline.teachers import missing

REVISION = "7" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def teacher(repository: str, **values) -> DiffusersTeacher:
    given = {"revision": REVISION, "dtype": "float32", "licence": "Apache-2.0", **values}
    return DiffusersTeacher(kind="diffusers", repository=repository, **given)


def filled(folder: Path) -> Path:
    (folder / "transformer").mkdir(parents=True)
    index = {"_class_name": "P", "transformer": ["diffusers", "T"], "safety": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "transformer" / "config.json").write_text("{}")
    (folder / "transformer" / "model.safetensors").touch()
    return folder


def test_weights_that_are_not_cached_come_with_the_command_that_gets_them(cache: Path) -> None:
    (sentence,) = missing(teacher("black-forest-labs/FLUX.1-schnell"))
    assert f"hf download black-forest-labs/FLUX.1-schnell --revision {REVISION}" in sentence


def test_cached_weights_lack_nothing_until_a_file_is_gone(cache: Path) -> None:
    repository = cache / "models--some--teacher"
    folder = filled(repository / "snapshots" / REVISION)
    assert missing(teacher("some/teacher")) == []
    (folder / "transformer" / "model.safetensors").unlink()
    (sentence,) = missing(teacher("some/teacher"))
    assert "transformer's weights" in sentence


def test_a_folder_needs_its_index_components_and_shards(tmp_path: Path) -> None:
    folder = filled(tmp_path / "teacher")
    assert missing(teacher(str(folder))) == []
    shards = folder / "transformer" / "model.safetensors.index.json"
    shards.write_text(json.dumps({"weight_map": {"w": "model-2.safetensors"}}))
    assert "lacks transformer/model-2.safetensors" in missing(teacher(str(folder)))[0]
    (folder / "model_index.json").unlink()
    assert "lacks model_index.json" in missing(teacher(str(folder)))[0]
    assert "is not there" in missing(teacher(str(tmp_path / "absent")))[0]


def test_a_hub_repository_needs_a_pinned_revision(cache: Path) -> None:
    (sentence,) = missing(teacher("some/teacher", revision=None))
    assert "needs a pinned revision" in sentence


def test_a_licence_that_may_forbid_distillation_must_be_accepted_by_name(tmp_path: Path) -> None:
    folder = str(filled(tmp_path / "teacher"))
    restricted = teacher(folder, licence="Some-Non-Commercial")
    for accepted in (None, "MIT"):
        (sentence,) = missing(restricted, accepted)
        assert "set images.accept_licence to 'Some-Non-Commercial'" in sentence
    assert missing(restricted, "Some-Non-Commercial") == []


def test_a_known_repository_cannot_be_given_another_licence(cache: Path) -> None:
    sentences = missing(teacher("black-forest-labs/FLUX.1-dev", licence="MIT"), "MIT")
    assert "is under FLUX-Non-Commercial, the run says MIT" in sentences[0]


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
def test_bfloat16_without_a_gpu_is_told(tmp_path: Path) -> None:
    folder = str(filled(tmp_path / "teacher"))
    (sentence,) = missing(teacher(folder, dtype="bfloat16"))
    assert "needs a CUDA GPU" in sentence
