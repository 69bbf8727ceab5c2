import pytest

pytest.importorskip("py3langid")

from pipeline.config import LanguageConfig
from pipeline.languages import foreign, missing

ENGLISH = [
    "a red circle above a blue square",
    "A photograph of the inside of a subway train with frogs on it.",
    "three green apples on a wooden table next to a window",
]
OTHERS = [
    "Ein roter Hund läuft über die grüne Wiese.",
    "Un perro rojo corre por el campo verde",
    "кошка сидит на деревянном столе",
]


def test_captions_in_other_languages_are_told() -> None:
    assert foreign(ENGLISH + OTHERS, LanguageConfig()) == [False] * 3 + [True] * 3


def test_any_of_the_allowed_languages_will_do() -> None:
    config = LanguageConfig(allowed=("en", "de"))
    assert foreign([*ENGLISH, *OTHERS], config) == [False] * 4 + [True] * 2


def test_a_short_caption_passes() -> None:
    assert foreign(["кошка", ""], LanguageConfig()) == [False, False]


def test_an_unknown_language_is_named() -> None:
    assert missing(LanguageConfig()) == []
    (sentence,) = missing(LanguageConfig(allowed=("en", "xx")))
    assert "['xx']" in sentence
