"""Overrides change what they name and nothing else; wrong values name themselves."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import alignment, features, images, student, verdicts
from pipeline.config import RUNS, RowFilter, load_run
from pipeline.tables import Manifest


def test_an_override_changes_one_value() -> None:
    plain, changed = load_run("tiny"), load_run("tiny", {"dpo.beta": 7})
    assert plain.dpo
    assert changed.dpo
    assert changed.dpo.beta == 7
    assert changed.model_copy(update={"dpo": plain.dpo}) == plain


def test_an_override_does_not_reach_through_an_anchor() -> None:
    plain, changed = load_run("tiny"), load_run("tiny", {"evaluation.sampling.guidance": 9})
    assert changed.evaluation
    assert changed.evaluation.sampling.guidance == 9
    assert changed.preferences == plain.preferences


def test_an_override_reaches_into_lists() -> None:
    changed = load_run("tiny", {"student.phases.0.steps": 3})
    assert changed.student
    assert changed.student.phases[0].steps == 3


def test_a_path_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTGEN_DATA", "/elsewhere")
    sources = load_run("real").captions.sources
    assert sources[0].paths == ("/elsewhere/captions/dpg_bench.jsonl",)  # type: ignore[union-attr]
    monkeypatch.delenv("LIGHTGEN_DATA")
    sources = load_run("real").captions.sources
    assert sources[0].paths == ("../shared/data/captions/dpg_bench.jsonl",)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"dpo.bta": 3}, ["dpo.bta", "got 3", "did you mean 'beta'", "checkpoint_every, "]),
        ({"dopo.beta": 3}, ["'dopo.beta'", "did you mean 'dpo'"]),
        ({"student.phases.9.steps": 3}, ["'student.phases.9.steps'", "no '9'"]),
        ({"dpo.beta": "much"}, ["dpo.beta", "number", "'much'"]),
        ({"dpo.beta": 0}, ["dpo.beta", "greater than 0", "got 0"]),
        ({"captions.sources.0.num_captions": 1.5}, ["num_captions", "integer", "1.5"]),
        ({"device": "tpu"}, ["device", "'cpu' or 'cuda'", "'tpu'"]),
        ({"images.teacher.kind": "painter"}, ["images.teacher", "'painter'", "'shapes'"]),
        ({"student.phases.0.image_size": 72}, ["student.phases.0.image_size", "72", "16"]),
        ({"student.phases.0.image_size": 256}, ["256 has no features", "[64, 128]"]),
        ({"features.image_sizes": [64, 512]}, ["features.image_sizes", "512", "128"]),
        ({"evaluation.image_size": 72}, ["evaluation.image_size", "72", "16"]),
        ({"preferences.image_size": 72}, ["preferences.image_size", "72", "16"]),
        ({"preferences.image_size": 96}, ["preferences.image_size", "96 has no features"]),
        ({"student.model.base_image_size": 72}, ["student.model", "72", "16"]),
        ({"evaluation.sampling.num_iterations": 17}, ["evaluation", "17 steps", "16 tokens"]),
        ({"preferences.sampling.num_iterations": 17}, ["preferences", "17 steps", "16 tokens"]),
        ({"student.model.width": 65}, ["width 65", "num_heads 4"]),
        ({"student.model.text_length": 9}, ["text_length", "9", "16"]),
        ({"verdicts": None}, ["verdicts: missing"]),
        ({"student.accumulation": 3}, ["phases.0.batch_size", "128", "multiple of 3"]),
        ({"student.num_processes": 3}, ["phases.0.batch_size", "128", "num_processes 3"]),
        ({"dpo.num_processes": 3}, ["dpo", "batch_size: 64", "num_processes 3"]),
        ({"student.strategy": "fsdp2"}, ["student", "fsdp2", "num_processes must be 2 or up"]),
        ({"student.strategy": "zero"}, ["student.strategy", "'ddp' or 'fsdp2'", "'zero'"]),
        ({"student.tracker": "wandb"}, ["student.tracker", "'tensorboard'", "'wandb'"]),
        ({"student.phases.0.optimizer.kind": "sgd"}, ["optimizer.kind", "'muon'", "'sgd'"]),
        ({"student.model.repa": {"width": 8, "block": 1}}, ["student.model.repa", "alignment_enc"]),
        ({"name": "Tiny Run"}, ["name", "'Tiny Run'"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_value_names_place_value_and_what_is_allowed(
    overrides: dict[str, Any], words: list[str], small_run: Path
) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        load_run(small_run, overrides)
    missing = [word for word in words if word not in str(caught.value)]
    assert missing == [], str(caught.value)


@pytest.fixture
def small_run(tmp_path: Path) -> Path:
    """The tiny run with sizes that these cases can count on."""
    values = yaml.safe_load((RUNS / "tiny.yaml").read_text("utf-8"))
    values["images"]["image_sizes"] = values["features"]["image_sizes"] = [64, 128]
    values["images"].pop("max_captions", None)
    values["student"]["model"] |= {"width": 64, "num_heads": 4, "text_length": 16}
    values["features"]["text_length"] = 16
    for stage in ("preferences", "evaluation"):
        values[stage]["image_size"] = 64
        values[stage]["sampling"] = {"num_iterations": 8}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_an_unknown_run_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'huge'.*known runs: .*'tiny'"):
        load_run("huge")


@pytest.mark.parametrize("text", [b"name: [", b"\xff\xfe\x00", b"just words", b""])
def test_a_file_that_is_no_run_is_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"broken\.yaml"):
        load_run(path)


def test_a_picture_that_the_shapes_cells_do_not_fill_is_refused() -> None:
    with pytest.raises(ValueError, match=r"72 must be a multiple of teacher\.cell_pixels 16"):
        load_run("tiny", {"images.image_sizes": [64, 72]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"captions.sources.0.enabled": False}, "none of .* is enabled"),
        ({"captions.sources.1.revision": "main"}, "revision"),
        ({"captions.near_duplicates.similarity": 1.5}, "less than or equal to 1"),
        ({"captions.selection.short_share": -0.1}, "greater than or equal to 0"),
        ({"captions.diversity.embedding": {"kind": "magic"}}, "'hashed', 'encoder'"),
    ],
)
def test_wrong_caption_values_are_named(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        load_run("full", change)


def test_a_filter_says_what_it_wants() -> None:
    with pytest.raises(ValueError, match="equals, at_least or at_most"):
        RowFilter(column="score")


def test_where_a_run_is_made_names_no_other_table_and_no_other_weights() -> None:
    elsewhere = {"engine": {"task_runner": "ray"}, "student.launcher": "ray", "dpo.launcher": "ray"}
    here, there = load_run("tiny"), load_run("tiny", elsewhere)
    assert here != there
    for stage in (images, verdicts, features):
        above = {name: Manifest(name, "content") for name in ("captions", "images", "verdicts")}
        assert stage.places(here, above) == stage.places(there, above)
    for stage, part in ((student, "student"), (alignment, "dpo")):
        assert stage.slice_of(getattr(here, part)) == stage.slice_of(getattr(there, part))
