"""What the flow hears of a training program."""

import pytest

from flows.training import said

ROW = '{"step": 2, "steps": 12, "loss": 1.5}'


@pytest.mark.parametrize(
    "sender",
    [
        "",
        "(RayTrainWorker pid=31550) ",
        "(RayTrainWorker pid=31550, ip=10.77.0.2) ",
        "\x1b[36m(RayTrainWorker pid=31550, ip=10.77.0.2)\x1b[0m ",
    ],
)
def test_a_row_is_a_row_whichever_node_printed_it(sender: str) -> None:
    assert said(sender + ROW) == ROW


def test_words_in_brackets_stay() -> None:
    assert said("(no pid here) the rest") == "(no pid here) the rest"
