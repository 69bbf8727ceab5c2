"""The terms of every stage stand in the plan, each source of captions among them."""

from pipeline.config import load_run
from pipeline.licences import licences


def test_the_licences_of_the_full_run() -> None:
    run = load_run("full", {"captions.sources.6.enabled": True})
    found = {
        (stage, each.what, each.name)
        for stage in ("captions", "images", "verdicts", "features", "student")
        for each in licences(run, stage)
    }
    assert found == {
        ("captions", "prompts", "MIT"),
        ("captions", "sharegpt4v", "CC-BY-NC-4.0"),
        ("images", "black-forest-labs/FLUX.1-schnell", "Apache-2.0"),
        ("verdicts", "Qwen/Qwen2-VL-7B-Instruct", "Apache-2.0"),
        ("features", "stabilityai/stable-diffusion-3.5-large", "Stability-Community"),
        ("features", "google/flan-t5-xxl", "Apache-2.0"),
    }


def test_every_weight_that_an_evaluator_names_is_listed() -> None:
    names = [each.what for each in licences(load_run("full"), "evaluate")]
    assert "timm/vit_large_patch14_clip_224.openai" in names


def test_the_embedded_world_is_free() -> None:
    run = load_run("tiny")
    stages = ("captions", "images", "verdicts", "features", "evaluate")
    assert {each.name for stage in stages for each in licences(run, stage)} == {"MIT"}
