"""Shares by checkpoint and task, with several evaluators, and what is paired with what."""

import pyarrow as pa
import pytest

from pipeline.standings import answers, comparisons, evidence, intervals, summarise

NAMES = (
    "evaluator", "checkpoint", "task", "prompt_index", "image_index", "seed", "correct",
)  # fmt: skip


def rows(*given: tuple[str, str, str, int, bool]) -> pa.Table:
    """Evaluator, checkpoint, task, prompt, correct: a picture a row, numbered as they come."""
    seen: dict[tuple[str, str, str, int], int] = {}
    lines = []
    for evaluator, checkpoint, task, prompt, correct in given:
        key = (evaluator, checkpoint, task, prompt)
        seen[key] = seen.get(key, -1) + 1
        picture = seen[key]
        lines.append((evaluator, checkpoint, task, prompt, picture, 10 * prompt + picture, correct))
    return pa.table(dict(zip(NAMES, map(list, zip(*lines, strict=True)), strict=True)))


TWO = rows(
    *[("shapes", "student", "colors", n, n < 4) for n in range(10) for _ in range(2)],
    *[("shapes", "student", "position", n, False) for n in range(10)],
    *[("shapes", "aligned", "colors", n, n < 9) for n in range(10) for _ in range(2)],
    *[("shapes", "aligned", "position", n, n < 1) for n in range(10)],
)


def test_the_mean_is_over_tasks_and_its_interval_holds_it() -> None:
    assert summarise(TWO) == {
        "student": {"colors": 0.4, "position": 0.0, "mean": 0.2},
        "aligned": {"colors": 0.9, "position": 0.1, "mean": 0.5},
    }
    known = intervals(TWO)
    for name, shares in summarise(TWO).items():
        for task, share in shares.items():
            each = known[name][task]
            assert each.share == pytest.approx(share)
            assert each.low <= share <= each.high
            assert each.low < each.high


def test_the_last_checkpoint_stands_against_each_before_it() -> None:
    untrained = [("shapes", "untrained", "colors", n, False) for n in range(10) for _ in range(2)]
    untrained += [("shapes", "untrained", "position", n, False) for n in range(10)]
    told = list(comparisons(pa.concat_tables([rows(*untrained), TWO])))
    assert [(row.before, row.after, row.task) for row in told] == [
        (before, "aligned", task)
        for before in ("student", "untrained")
        for task in ("colors", "position", "mean")
    ]
    assert [row.difference for row in told[:3]] == pytest.approx([0.5, 0.1, 0.3])
    assert told[0].gained == 10


def test_each_of_several_evaluators_has_its_own_mean_and_the_first_ones_is_the_mean() -> None:
    table = rows(
        ("geneval", "student", "colors", 0, True),
        ("geneval", "student", "position", 1, False),
        ("geneval_rewritten", "student", "colors", 0, True),
        ("geneval_rewritten", "student", "position", 1, True),
    )
    assert summarise(table)["student"] == {
        "geneval/colors": 1.0,
        "geneval/position": 0.0,
        "geneval/mean": 0.5,
        "geneval_rewritten/colors": 1.0,
        "geneval_rewritten/position": 1.0,
        "geneval_rewritten/mean": 1.0,
        "mean": 0.5,
    }
    assert list(intervals(table)["student"]) == list(summarise(table)["student"])


def test_pictures_are_paired_by_prompt_and_number_whatever_the_order_of_rows() -> None:
    mixed = TWO.take(list(range(len(TWO) - 1, -1, -1)))
    mixed = pa.concat_tables(
        [
            mixed.filter(pa.compute.equal(mixed["checkpoint"], name))
            for name in ("student", "aligned")
        ]
    )
    assert {r.task: r for r in comparisons(mixed)} == {r.task: r for r in comparisons(TWO)}
    assert answers(TWO)["student"]["shapes"]["colors"].asked[:3] == (
        (0, 0, 0),
        (0, 1, 1),
        (1, 0, 10),
    )


def test_tasks_that_were_not_asked_alike_are_not_compared() -> None:
    table = pa.concat_tables(
        [TWO, rows(*[("shapes", "later", "colors", n, True) for n in range(3)])]
    )
    assert list(comparisons(table)) == []


def test_the_strict_score_takes_clutter_for_wrong() -> None:
    table = TWO.append_column("extra_objects", pa.array([row % 2 for row in range(len(TWO))]))
    told = evidence(table)
    assert told.intervals["aligned"]["colors"].share == pytest.approx(0.9)
    assert told.strict["aligned"]["colors"].share == pytest.approx(0.45)
    assert told.strict["aligned"]["mean"].share == pytest.approx((0.45 + 0.1) / 2)
    differences = {row.task: row.difference for row in told.strict_comparisons}
    assert differences["colors"] == pytest.approx(0.25)
    assert told.comparisons[0].difference == pytest.approx(0.5)
