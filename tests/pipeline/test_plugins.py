"""Plug-ins: code of one's own, from packages that the machine allows and no others."""

import pytest

from pipeline import caption_sources, judges, plugins, teachers
from pipeline.config import PluginCaptions, PluginJudge, PluginTeacher

NULL = "tests.benchmarks.null"


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(plugins.ALLOWED, "something_else, tests")


def test_a_class_of_an_allowed_package_draws_judges_and_gives_captions() -> None:
    teacher = teachers.build(
        PluginTeacher(kind="plugin", path=f"{NULL}.teacher:NullTeacher", licence="MIT")
    )
    (drawing,) = teacher.draw(["a boat"], [1], 16)
    assert drawing.image is not None
    judge = judges.build(PluginJudge(kind="plugin", path=f"{NULL}.judge:NullJudge"))
    (verdict,) = judge.judge([drawing.image], ["a boat"])
    assert verdict.alignment == 1.0
    values = {"path": f"{NULL}.captions:NullCaptions", "values": {"number": 3}}
    config = PluginCaptions(kind="plugin", name="mine", licence="MIT", **values)  # type: ignore[arg-type]
    source = caption_sources.build(config)
    assert len(list(caption_sources.all_rows(source))) == 3
    assert (source.name, source.licence) == ("mine", "MIT")


@pytest.mark.parametrize("path", ["subprocess:Popen", "testsuite.thing:Class", "os.path:Class"])
def test_nothing_else_is_loaded_and_the_sentence_says_how_to_allow_it(path: str) -> None:
    with pytest.raises(ValueError, match=r"loads no plug-ins from .* LIGHTGEN_PLUGINS="):
        plugins.load(path, {})


@pytest.mark.parametrize(
    ("path", "values", "said"),
    [
        (f"{NULL}.nowhere:Class", {}, "there is no module"),
        (f"{NULL}.teacher:Nobody", {}, "has no class Nobody"),
        (f"{NULL}.teacher:Sequence", {"size": 1}, "with the values"),
    ],
)
def test_what_cannot_be_loaded_is_named(path: str, values: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plugins.load(path, values)


def test_another_version_of_its_code_is_another_table() -> None:
    one, two = (
        PluginTeacher(kind="plugin", path="mine.here:Class", licence="MIT", version=version)
        for version in (1, 2)
    )
    assert teachers.identity(one) != teachers.identity(two)
    assert "LIGHTGEN_PLUGINS" in teachers.missing(one)[0]


def test_a_folder_is_no_plug_in_and_a_class_is() -> None:
    assert not plugins.is_plugin("infra/models/shapes/autoencoder")
    assert not plugins.is_plugin("google/flan-t5-xxl")
    assert plugins.is_plugin(f"{NULL}.encoders:NullAutoencoder")
