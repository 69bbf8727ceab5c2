"""What a machine lacks is said before any work, all at once, without loading a model."""

import subprocess
from pathlib import Path

import pytest

from pipeline import preflight
from pipeline.config import load_run


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU, an empty hub cache, no data."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LIGHTGEN_CAPTIONS", str(tmp_path / "captions"))


def test_the_full_run_names_everything_it_lacks_and_how_to_get_it() -> None:
    with pytest.raises(ValueError, match="cannot start") as caught:
        preflight.check(load_run("full"), list(preflight.SECTIONS))
    text = str(caught.value)
    for word in (
        "no NVIDIA GPU",
        "prompts",
        "black-forest-labs/FLUX.1-schnell",
        "http://127.0.0.1:8001",
        "hf download google/flan-t5-xxl --revision",
        "stabilityai/stable-diffusion-3.5-large",
        "GenEval",
    ):
        assert word in text, text


def test_the_tiny_run_lacks_nothing() -> None:
    assert preflight.missing(load_run("tiny"), list(preflight.SECTIONS)) == []


def test_only_the_stages_asked_for_are_looked_at() -> None:
    first, *others = preflight.missing(load_run("full"), ["captions"])
    assert "'prompts': no file matches" in first
    assert all("no file matches" in each or "not installed" in each for each in others)


def test_cautions_of_the_sets_that_are_used_are_told_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = load_run("full", {"captions.sources.1.enabled": True})
    with pytest.raises(ValueError, match="cannot start"):
        preflight.check(run, ["captions"])
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("caution: pd12m (CDLA-Permissive-2.0): ")
    assert preflight.cautions(load_run("full"), ["captions"]) == []
    assert preflight.cautions(run, ["images"]) == []


def test_a_run_without_the_stage_says_where_it_ends() -> None:
    with pytest.raises(ValueError, match="'real' has no images: it ends with captions"):
        preflight.require(load_run("real"), "images")


def test_a_snapshot_in_the_hub_cache_counts_at_its_revision_only(tmp_path: Path) -> None:
    (tmp_path / "hub" / "models--some--model" / "snapshots" / "abc").mkdir(parents=True)
    assert preflight.missing_weights("x", "some/model", "abc") == ""
    assert preflight.missing_weights("x", "some/model", None) == ""
    assert "--revision def" in preflight.missing_weights("x", "some/model", "def")


def test_a_missing_folder_is_not_taken_for_a_repository() -> None:
    assert "is not there" in preflight.missing_weights("x", "infra/models/nothing", None)


def test_a_gpu_is_seen_through_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)
    answer = subprocess.CompletedProcess([], 0, "GPU 0: something\n", "")
    monkeypatch.setattr("subprocess.run", lambda *args, **kwargs: answer)
    assert preflight.has_gpu()


def test_a_start_that_is_no_checkpoint_is_named_for_the_student_alone(tmp_path: Path) -> None:
    run = load_run("tiny", {"student.start": str(tmp_path)})
    (line,) = preflight.missing(run, ["student"])
    assert line == f"student.start: {tmp_path} is no checkpoint folder"
    assert preflight.missing(run, ["captions"]) == []


def test_the_weights_of_a_caption_encoder_are_looked_for() -> None:
    embedding = {"kind": "encoder", "model": "some/encoder", "revision": "abc"}
    run = load_run("full", {"captions.diversity.embedding": embedding})
    sentences = preflight.missing(run, ["captions"])
    assert any("captions.diversity.embedding.model" in each for each in sentences)


ELSEWHERE = {"device": "cuda", "engine": {"task_runner": "ray"}, "student.launcher": "ray"}


def test_stages_on_a_cluster_need_ray_here_and_the_gpu_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    run, stages = load_run("tiny", ELSEWHERE), ["captions", "images", "features", "student"]
    assert [preflight.on_cluster(run, stage) for stage in stages] == [False, True, True, True]
    [sentence] = preflight.missing(run, stages)
    assert "images, features, student on a Ray cluster need the extra" in sentence
    assert "no NVIDIA GPU" in preflight.missing(run, ["dpo"])[0]  # its launcher is torchrun
    assert preflight.missing(load_run("tiny"), stages) == []


def test_a_flow_without_a_gpu_looks_with_its_cpu_at_what_nodes_made() -> None:
    assert preflight.seen_here(load_run("tiny", ELSEWHERE)).device == "cpu"
    assert preflight.seen_here(load_run("tiny", {"device": "cuda"})).device == "cuda"
