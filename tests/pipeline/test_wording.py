"""Spelling and essence of captions."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.wording import essence, essences, normalise


@given(st.text())
def test_normalising_twice_is_normalising_once(text):
    once = normalise(text)
    assert normalise(once) == once
    assert once == unicodedata.normalize("NFC", once)
    assert once == once.strip()
    assert not any(unicodedata.category(letter) == "Cc" for letter in once)
    once.encode()


@given(st.text(st.characters(max_codepoint=127)))
def test_the_fast_way_of_plain_text_is_the_slow_one(text):
    assert normalise(text) == normalise(text + "é")[:-1].strip()


def test_what_reads_the_same_is_the_same_caption():
    spellings = [
        "a  red\tcafé ",
        "a red café",
        "\ufeffa re\u200bd cafe\u0301\x00",
        "a\u00a0red café",
    ]
    assert {normalise(text) for text in spellings} == {"a red café"}


@pytest.mark.parametrize(
    "text", ["A red cat.", "a RED cat", "the red, cat", "A photo of a red cat!", "red cat"]
)
def test_form_is_no_part_of_the_essence(text):
    assert essence(text) == b"red cat"


@given(st.text())
def test_the_essence_of_anything_is_utf8_words(text):
    assert essence(normalise(text)).decode() == " ".join(essence(normalise(text)).decode().split())


def test_other_scripts_keep_their_words():
    assert essence("Красный КОТ, 红色的猫").decode() == "красный кот 红色的猫"


FORMS = st.sampled_from(["a", "The ", "an", " ", ",", "photo of", "A photo of a", "\n", "x_y", "é"])


@given(st.lists(st.lists(FORMS | st.text(max_size=3), max_size=6).map("".join)))
def test_many_essences_are_those_of_each(captions):
    assert essences(captions) == [essence(caption) for caption in captions]
