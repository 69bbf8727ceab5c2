"""The judge before servers that misbehave: nothing lost, every row a verdict or a clear stop."""

import json
import time

import pytest

from pipeline.config import QwenJudge
from pipeline.judges import build, missing
from pipeline.judges.qwen_vl import JudgeFailingError, QwenVlJudge

HTML = "<html><body>502 Bad Gateway</body></html>"
NO_JSON = json.dumps({"choices": [{"message": {"content": "I like it"}}]})
HALF = '{"choices": [{"message": {"content": "{\\"missing\\": ['


def quick(config: QwenJudge, **values) -> QwenVlJudge:
    return QwenVlJudge(config, first_wait=0.01, **values)


def test_pictures_are_judged_in_order_by_all_servers(servers, asking, picture) -> None:
    images = [picture(width) for width in range(60, 72)]
    verdicts = build(asking(servers)).judge(images, ["a cat"] * 12)
    assert [verdict.words for verdict in verdicts] == [f"width {w}" for w in range(60, 72)]
    assert {(one.alignment, one.quality, one.reason) for one in verdicts} == {
        (0.9, 0.8, "artefacts")
    }
    assert [len(server.requests) for server in servers] == [6, 6]
    assert json.loads(verdicts[0].answer)["alignment"] == 9


def test_the_request_asks_for_json_and_a_small_picture(servers, asking, picture) -> None:
    wide = picture(400).resize((400, 100)).convert("RGBA")
    build(asking(servers[:1], max_pixels=4000)).judge([wide], ['a {caption} "cat"'])
    (request,) = servers[0].requests
    assert picture(of=request).size == (126, 31)
    assert request["temperature"] == 0
    assert 'a {caption} "cat"' in request["messages"][0]["content"][1]["text"]
    schema = request["response_format"]["json_schema"]["schema"]
    assert set(schema["required"]) == {"missing", "artefacts", "words", "alignment", "quality"}


def test_many_requests_are_in_flight_and_never_more_than_allowed(servers, asking, picture) -> None:
    servers[0].script = [0.05] * 60
    judge = quick(asking(servers[:1], requests_in_flight=20))
    judge.judge([picture(60 + n) for n in range(60)], ["a cat"] * 60)
    assert 10 < servers[0].most <= 20


@pytest.mark.parametrize("trouble", [500, 503, (429, "0"), HTML, HALF, "cut", 1.5, "drip", "flood"])
def test_a_server_in_trouble_is_asked_again(trouble, servers, asking, picture) -> None:
    servers[0].script = [trouble, trouble]
    judge = quick(asking(servers[:1], timeout_seconds=0.3))
    (verdict,) = judge.judge([picture()], ["a cat"])
    assert verdict.alignment == 0.9
    assert len(servers[0].requests) == 3


def test_a_server_busy_for_a_while_loses_nothing(servers, asking, picture) -> None:
    servers[0].busy_until = time.monotonic() + 1.5
    judge = quick(asking(servers[:1], requests_in_flight=8))
    verdicts = judge.judge([picture(60 + n) for n in range(16)], ["a cat"] * 16)
    assert [verdict.words for verdict in verdicts] == [f"width {60 + n}" for n in range(16)]
    # Its word was taken: eight in flight knocked at most once a second, not a hundred times.
    assert len(servers[0].requests) <= 16 + 8 * 4


def test_a_busy_server_leaves_its_share_to_the_other(servers, asking, picture) -> None:
    servers[0].busy_until = time.monotonic() + 60
    verdicts = quick(asking(servers)).judge([picture()] * 12, ["a cat"] * 12)
    assert {verdict.alignment for verdict in verdicts} == {0.9}
    assert len(servers[1].requests) == 12


def test_a_dead_server_leaves_its_share_to_the_others(servers, asking, picture) -> None:
    servers[1].shutdown()
    servers[1].server_close()
    verdicts = quick(asking(servers)).judge([picture()] * 4, ["a cat"] * 4)
    assert [verdict.alignment for verdict in verdicts] == [0.9] * 4


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [(NO_JSON, "unparsable answer", "I like it"), (400, "refused by the server", "400 not now"),
     (HTML, "no answer", "502 Bad Gateway")]
)  # fmt: skip
def test_one_picture_without_an_answer_is_a_row(body, reason, words, servers, asking, picture):
    servers[0].answer = lambda request: by_caption(request, "odd", body)
    servers[0].script = [400] if body == 400 else []
    judge = quick(asking(servers[:1], patience_seconds=0.3, requests_in_flight=1))
    odd, good = judge.judge([picture()] * 2, ["an odd cat", "a cat"])
    assert (odd.reason, odd.alignment, odd.quality) == (reason, 0, 0)
    assert words in odd.words
    assert (good.reason, good.alignment) == ("", 0.9)


def by_caption(request: dict, word: str, body: str | int) -> str:
    asked = request["messages"][0]["content"][1]["text"]
    good = {"missing": [], "artefacts": [], "alignment": 9, "quality": 9}
    plain = json.dumps({"choices": [{"message": {"content": json.dumps(good)}}]})
    return str(body) if word in asked else plain


@pytest.mark.parametrize("trouble", [400, 500, HTML, NO_JSON])
def test_too_many_errors_stop_it_with_the_servers_words(trouble, servers, asking, picture) -> None:
    servers[0].script = [trouble] * 300
    judge = quick(asking(servers[:1], patience_seconds=0.2))
    with pytest.raises(JudgeFailingError, match=r"of \d+ pictures .*max_error_rate 0.05.*last: "):
        judge.judge([picture(60 + n) for n in range(200)], ["a cat"] * 200)
    assert len(servers[0].requests) < 100
    servers[0].script = []
    assert judge.judge([picture()], ["a cat"])[0].alignment == 0.9  # a retry begins anew


def test_a_dead_server_stops_it_when_patience_ends(servers, asking, picture) -> None:
    servers[0].shutdown()
    servers[0].server_close()
    judge = quick(asking(servers[:1], patience_seconds=0.3))
    with pytest.raises(JudgeFailingError, match="no answer: ConnectError"):
        judge.judge([picture()] * 9, ["a cat"] * 9)


def test_what_was_answered_is_not_asked_again(servers, asking, picture, tmp_path) -> None:
    images, captions = [picture(60 + n) for n in range(6)], ["a cat"] * 6
    config, memo = asking(servers[:1]), tmp_path / "answers.sqlite"
    first = build(config, memo).judge(images, captions)
    again = build(config, memo).judge(images, captions)
    assert again == first
    assert len(servers[0].requests) == 6
    build(config, memo).judge(images, ["a dog"] * 6)
    assert len(servers[0].requests) == 12
    other = asking(servers[:1], revision="0" * 40)  # the same name, other weights
    build(other, memo).judge(images, captions)
    assert len(servers[0].requests) == 18


def test_failures_are_not_remembered(servers, asking, picture, tmp_path) -> None:
    servers[0].script = [400]
    judge = quick(asking(servers[:1]), memo=tmp_path / "answers.sqlite")
    assert judge.judge([picture()], ["a cat"])[0].reason == "refused by the server"
    assert judge.judge([picture()], ["a cat"])[0].reason == "artefacts"


def test_yes_and_no_are_weighed_by_the_first_token(servers, asking, picture) -> None:
    top = [{"token": "Yes", "logprob": -0.5}, {"token": "No", "logprob": -1.5}]
    choice = {"message": {"content": "Yes"}, "logprobs": {"content": [{"top_logprobs": top}]}}
    servers[0].answer = lambda request: json.dumps({"choices": [choice]})
    (verdict,) = quick(asking(servers[:1], mode="yes_no")).judge([picture()], ["a cat"])
    assert verdict.alignment == pytest.approx(1 / (1 + 2.718281828**-1))
    assert verdict.quality == verdict.alignment
    assert [r["max_tokens"] for r in servers[0].requests] == [1, 1]
    assert {r["top_logprobs"] for r in servers[0].requests} == {20}


def test_its_revision_names_the_weights_the_questions_and_their_digest(servers, asking) -> None:
    plain = build(asking(servers, revision="abc"))
    assert plain.revision.startswith("abc scores-v1-")
    assert plain.revision != build(asking(servers, revision="abc", mode="yes_no")).revision
    with pytest.raises(ValueError, match=r"no questions 'scores_v9', there are \['scores_v1'"):
        build(asking(servers, question_version=9))


def test_preflight_tells_what_is_not_served(servers, asking) -> None:
    assert missing(asking(servers)) == []
    (wrong,) = missing(asking(servers[:1], model="other"))
    assert "serves ['qwen'], not 'other'" in wrong
    servers[1].shutdown()
    servers[1].server_close()
    (silent,) = missing(asking(servers))
    assert "does not answer" in silent
    assert f"vllm serve qwen --host 127.0.0.1 --port {servers[1].server_address[1]}" in silent


@pytest.mark.parametrize("endpoint", ["nowhere", "http://127.0.0.1:9/v1", "http://[::1/v1", ""])
def test_an_odd_endpoint_is_a_sentence(endpoint: str) -> None:
    (sentence,) = missing(QwenJudge(kind="qwen_vl", model="m", endpoints=(endpoint,)))
    assert "does not answer" in sentence
