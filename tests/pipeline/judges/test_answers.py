"""Anything that a server or a model can say becomes a verdict that a table can hold."""

import json
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.judges.answers import NoAnswerError, said, scores, share_of_yes, verdict_of, yes_no

GOOD = {"missing": [], "artefacts": [], "words": "", "alignment": 9, "quality": 8.5}


def completion(content: object) -> str:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]})


def test_good_answers_are_read_in_a_fence_and_after_words() -> None:
    for content in (
        json.dumps(GOOD),
        f"```json\n{json.dumps(GOOD)}\n```",
        f"So: {json.dumps(GOOD)}",
    ):
        verdict = scores(said(completion(content), "scores"))
        assert (verdict.alignment, verdict.quality, verdict.reason) == (0.9, 0.85, "")
        assert verdict.answer == content
    lacking = scores(json.dumps({**GOOD, "missing": ["the hat"], "words": "a bare head"}))
    assert (lacking.words, lacking.reason) == (
        "lacks the hat; a bare head",
        "missing or wrong content",
    )


def test_control_characters_inside_strings_are_read() -> None:
    """A grammar of a real server let them through."""
    answer = json.dumps(GOOD).replace('"words": ""', '"words": "\t\x1f ok"')
    assert scores(answer).alignment == 0.9


@pytest.mark.parametrize(
    "change", [{"alignment": 11}, {"quality": -1}, {"quality": "8"}, {"alignment": True},
               {"alignment": float("nan")}, {"missing": "hat"}, {"quality": None}]
)  # fmt: skip
def test_scores_outside_the_scale_are_unparsable(change: dict) -> None:
    verdict = scores(json.dumps({**GOOD, **change}))
    assert (verdict.alignment, verdict.quality, verdict.reason) == (0, 0, "unparsable answer")


@pytest.mark.parametrize(
    "body", ["", "<html>", '{"choices": []}', completion("x")[:-4], '{"error": "busy"}', "\ud800"]
)
def test_what_is_no_completion_is_the_servers_fault(body: str) -> None:
    with pytest.raises(NoAnswerError, match="not a chat completion"):
        said(body, "scores")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.text(st.characters())
    | JSON.map(json.dumps)
    | st.dictionaries(st.sampled_from(list(GOOD)), JSON).map(json.dumps),
    st.sampled_from(["scores", "yes_no"]),
)
def test_any_answer_gives_a_verdict_that_a_table_can_hold(answer: str, mode: str) -> None:
    verdict = verdict_of([said(completion(answer), "scores")] * 2, mode)
    assert 0 <= verdict.alignment <= 1
    assert 0 <= verdict.quality <= 1
    verdict.words.encode()
    verdict.answer.encode()


@given(JSON)
def test_any_body_is_an_answer_or_no_answer(value: object) -> None:
    for mode in ("scores", "yes_no"):
        for body in (json.dumps(value), completion(value)):
            with suppress(NoAnswerError):
                answer = said(body, mode)
                assert answer.encode().decode() == answer


def test_a_deeply_nested_answer_is_unparsable() -> None:
    deep = '{"missing": ' + "[" * 100_000
    assert scores(deep + "}").reason == "unparsable answer"


@given(st.floats(-20, 0), st.floats(-20, 0))
def test_the_share_of_yes_is_its_part_of_both_masses(yes: float, no: float) -> None:
    share = share_of_yes(json.dumps([["Yes", yes], ["No", no], ["Maybe", -0.1]]))
    total = math.exp(yes) + math.exp(no)
    if total < 0.01:
        assert share is None
    else:
        assert share == pytest.approx(math.exp(yes) / total)


def test_spellings_of_yes_are_added_up_and_others_count_for_nothing() -> None:
    half = math.log(0.25)
    share = share_of_yes(json.dumps([["Yes", half], [" yes", half], ["\u0120NO", half], ["x", -1]]))
    assert share == pytest.approx(2 / 3)
    assert share_of_yes(json.dumps([["x", -0.1]])) is None
    one = json.dumps([["yes", -0.1], ["no", -3]])
    assert yes_no(one, "[]").reason == "unparsable answer"
    assert yes_no(json.dumps([["no", -0.1]]), one).reason == "poor alignment"
