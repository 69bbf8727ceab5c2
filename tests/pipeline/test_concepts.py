import pytest

from pipeline.concepts import concepts, kinds_of


def test_concepts_are_found_in_order_the_plural_as_the_singular() -> None:
    words = ["two", "red", "cats", "on", "old", "buses", "near", "17", "glasses", "of", "wine"]
    assert concepts(words) == ["two", "red", "cat", "on", "bus", "near", "17", "glass"]


@pytest.mark.parametrize(
    ("kind", "word"),
    [("colours", "red"), ("counts", "12"), ("places", "above"), ("objects", "dog")],
)
def test_each_kind_has_its_words(kind: str, word: str) -> None:
    found = kinds_of(["some", word])
    assert found.pop(kind) == {word}
    assert not any(found.values())


def test_orange_is_a_colour_and_a_fruit() -> None:
    found = kinds_of(["orange"])
    assert found["colours"] == found["objects"] == {"orange"}
