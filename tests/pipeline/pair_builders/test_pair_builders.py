"""Every builder: which pictures it compares, and when two of them are no pair."""

import pytest

from pipeline.config import PreferencesConfig, SamplingConfig
from pipeline.pair_builders import GOOD_SAMPLE, SAME, TIE, Contender, PairBuilder, build


def picture(name: str, score: float, seed: int = 0) -> Contender:
    return Contender(name, name.encode(), b"", score, good=score > 0.5, seed=seed)


def builder(kind: str, margin: float) -> PairBuilder:
    values = {"image_size": 64, "num_captions": 1, "sampling": SamplingConfig(num_iterations=1)}
    config = PreferencesConfig.model_validate({**values, "pairs": (kind,), "min_margin": margin})
    (built,) = build(config)
    assert built.name == kind
    return built


@pytest.mark.parametrize(
    ("scores", "margin", "reason"),
    [([0.2, 0.9], 0.1, ""), ([0.5, 0.55], 0.1, TIE), ([0.5], 0.0, TIE), ([1, 1], 0.0, TIE)],
)
def test_best_over_worst_needs_a_margin(scores: list[float], margin: float, reason: str) -> None:
    drawn = [picture(f"sample {n}", score) for n, score in enumerate(scores)]
    (pair,) = builder("best_over_worst", margin).pair([], drawn)
    assert (pair.winner.score, pair.loser.score) == (max(scores), min(scores))
    assert pair.reason == reason


def test_the_teacher_is_compared_with_every_sample_but_unlearns_no_good_one() -> None:
    drawn = [picture("bad", 0.1), picture("good", 0.9), picture("near", 0.45)]
    teacher = [picture("teacher", 0.5), picture("teacher 1", 0.9)]
    pairs = builder("teacher_over_student", 0.1).pair(teacher, drawn)
    assert [pair.winner.origin for pair in pairs] == ["teacher"] * 3
    assert [pair.reason for pair in pairs] == ["", GOOD_SAMPLE, TIE]


def test_pictures_of_equal_seeds_meet_and_others_do_not() -> None:
    teacher = [picture("teacher", 1.0, seed=7), picture("teacher 1", 1.0, seed=9)]
    drawn = [picture("a", 0.1, seed=9), picture("b", 0.1, seed=8), picture("c", 0.9, seed=7)]
    pairs = builder("same_seed", 0.1).pair(teacher, drawn)
    met = [(pair.winner.origin, pair.loser.origin, pair.reason) for pair in pairs]
    assert met == [("teacher", "c", GOOD_SAMPLE), ("teacher 1", "a", "")]


def test_a_picture_is_no_better_than_itself_whatever_a_moody_judge_says() -> None:
    twins = [Contender(name, b"latents", b"", score, True) for name, score in (("a", 0), ("b", 1))]
    (pair,) = builder("best_over_worst", 0.1).pair([], twins)
    assert pair.reason == SAME


def test_the_best_good_sample_meets_the_worst_bad_one_and_no_crowded_picture_wins() -> None:
    names = {"good": 0.8, "better": 0.9, "bad": 0.1, "worse": 0.0}
    drawn = [picture(name, score) for name, score in names.items()]
    crowded = Contender("crowded", b"crowded", b"", 0.95, good=False)
    (pair,) = builder("good_over_bad", 0.0).pair([], [*drawn, crowded])
    assert (pair.winner.origin, pair.loser.origin, pair.reason) == ("better", "worse", "")
    (pair,) = builder("good_over_bad", 0.0).pair([], [picture("good", 0.9), crowded])
    assert (pair.winner.origin, pair.loser.origin, pair.reason) == ("good", "crowded", TIE)


def test_every_good_sample_meets_every_bad_one_and_a_near_one_is_a_tie() -> None:
    crowded = Contender("crowded", b"crowded", b"", 0.85, good=False)
    drawn = [picture("worst", 0.0), picture("good", 0.9), crowded, picture("best", 1.0)]
    pairs = builder("every_good_over_bad", 0.1).pair([], drawn)
    met = [(pair.winner.origin, pair.loser.origin, pair.reason) for pair in pairs]
    assert met == [
        ("good", "worst", ""),
        ("good", "crowded", TIE),
        ("best", "worst", ""),
        ("best", "crowded", ""),
    ]


@pytest.mark.parametrize("kind", ["good_over_bad", "every_good_over_bad"])
@pytest.mark.parametrize("scores", [[0.9, 0.8], [0.2, 0.1], [0.7]])
def test_samples_that_are_all_good_or_all_bad_are_no_pair(kind: str, scores: list[float]) -> None:
    drawn = [picture(f"sample {n}", score) for n, score in enumerate(scores)]
    (pair,) = builder(kind, 0.0).pair([], drawn)
    assert pair.reason == TIE
