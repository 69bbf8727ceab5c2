import json
import re
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub.constants
import pytest

from pipeline.config import DiffusersTeacher, PicturesTeacher
from pipeline.teachers import missing
from pipeline.teachers.requirements import KNOWN

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


@pytest.mark.parametrize("repository", sorted(KNOWN))
def test_what_is_known_of_a_repository_opens_or_shuts_the_gate(cache: Path, repository) -> None:
    terms = KNOWN[repository]
    told = " ".join(missing(teacher(repository, licence=terms.licence)))
    assert ("images.accept_licence" in told) != terms.distillation
    assert terms.caution in told
    accepted = " ".join(missing(teacher(repository, licence=terms.licence), terms.licence))
    assert "images.accept_licence" not in accepted


def test_a_free_licence_on_a_card_does_not_lift_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    pictures = PicturesTeacher(
        kind="pictures", name="t2i", dataset="jackyhate/text-to-image-2M", licence="MIT",
        paths=(str(tmp_path / "*.tar"), str(tmp_path / "*.parquet")), format="webdataset",
    )  # fmt: skip
    licence, files = missing(pictures)
    assert "drawn by FLUX.1-dev and DALL-E 3" in licence
    assert "no file matches" in files
    assert "*.parquet" in files
    assert missing(pictures, "MIT") == [files]


def test_a_classifier_must_be_here_too(cache: Path, tmp_path: Path) -> None:
    folder = str(filled(tmp_path / "teacher"))
    for safety, words in (
        ({"repository": "some/classifier"}, "pin a commit"),
        ({"repository": "some/classifier", "revision": "a"}, "hf download some/classifier"),
        ({"repository": str(tmp_path / "none")}, "is not there"),
    ):
        (sentence,) = missing(teacher(folder, safety=safety))
        assert sentence.startswith("images.teacher.safety.")
        assert words in sentence
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "config.json").touch()
    assert missing(teacher(folder, safety={"repository": str(tmp_path / "here")})) == []


def test_a_class_that_diffusers_lacks_is_told_without_importing_it(tmp_path: Path) -> None:
    folder = str(filled(tmp_path / "teacher"))
    (sentence,) = missing(teacher(folder, pipeline="ZImagPipeline"))
    assert "diffusers has no 'ZImagPipeline'; close names: ['ZImagePipeline'" in sentence


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with diffusers and nothing that only some values need."""
    found = {"diffusers": find_spec("diffusers")}
    monkeypatch.setattr("pipeline.teachers.requirements.find_spec", found.get)


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
def test_fewer_bits_need_their_library_and_bitsandbytes_a_gpu(tmp_path: Path, bare) -> None:
    folder = str(filled(tmp_path / "teacher"))
    (library,) = missing(teacher(folder, quantization={"method": "torchao"}))
    assert "torchao needs torchao; pip install torchao" in library
    four = {"method": "torchao", "weights": "int4"}
    assert "needs mslk" in missing(teacher(folder, quantization=four))[1]
    library, gpu = missing(teacher(folder, quantization={"method": "bitsandbytes_4bit"}))
    assert "pip install bitsandbytes" in library
    assert "with bitsandbytes needs a CUDA GPU" in gpu
    with pytest.raises(ValueError, match="'int4' is for torchao; bitsandbytes_4bit names its own"):
        teacher(folder, quantization={**four, "method": "bitsandbytes_4bit"})


@pytest.mark.parametrize(
    ("backend", "words"),
    [("flash", "needs flash-attn"), ("_flash_3", "FlashAttention 3"), ("sage", "sageattention"),
     ("_flash_3_hub", "needs kernels"), ("sage_hub", "needs kernels"), ("xformers", "xformers"),
     ("flesh", "has no 'flesh', it has .*'flash'"), ("native", ""), ("_native_cudnn", "")],
)  # fmt: skip
def test_a_backend_of_attention_needs_its_library(
    tmp_path: Path, bare, backend: str, words: str
) -> None:
    told = missing(teacher(str(filled(tmp_path / "teacher")), attention_backend=backend))
    assert len(told) == bool(words)
    assert re.search(words, " ".join(told))


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
def test_bfloat16_without_a_gpu_is_told(tmp_path: Path) -> None:
    folder = str(filled(tmp_path / "teacher"))
    (sentence,) = missing(teacher(folder, dtype="bfloat16"))
    assert "needs a CUDA GPU" in sentence
