"""Studies by value: what a point's values are, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import student
from pipeline.ablations import ABLATIONS, Ablations, check, load_ablations, trials
from pipeline.config import load_run

STUDY: dict[str, Any] = {
    "title": "t",
    "reference": "a",
    "values": {"student.seed": "$seed", "dpo.beta": 1},
    "points": [
        {"label": "b", "feedback": {"after": "a", "num_captions": 3}, "values": {"dpo.steps": 5}},
        {"label": "a", "values": {"student.subset": {"share": 0.5, "seed": "$seed"}}},
    ],
}


def ablations(**changes: Any) -> Ablations:
    study = {**STUDY, **changes}
    return Ablations.model_validate({"seeds": [3, 4], "studies": {"one": study}})


def test_a_point_has_the_values_of_all_its_own_and_the_seed() -> None:
    given = ablations()
    found = trials(given, given.studies["one"], {"dpo.beta": 2})
    assert [(t.label, t.seed) for t in found] == [("a", 3), ("b", 3), ("a", 4), ("b", 4)]
    assert [t.seed for t in trials(given, given.studies["one"], {}, [9])] == [9, 9]
    subset = {"student.subset": {"share": 0.5, "seed": 4}}
    assert found[2].overrides == {"student.seed": 4, "dpo.beta": 2, **subset}
    assert found[3].overrides == {**found[2].overrides, "dpo.steps": 5}
    assert found[3].feedback == given.studies["one"].points[0].feedback


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reference": "c"}, r"reference: 'c' is no point; they are \['b', 'a'\]"),
        ({"points": [{"label": "a"}, {"label": "a"}]}, "labels must differ"),
        ({"points": [{"label": "a"}]}, "at least 2"),
        (
            {
                "points": [
                    {"label": "a"},
                    {"label": "b", "feedback": {"after": "b", "num_captions": 1}},
                ]
            },
            r"'b' goes on after 'b', which is no point without feedback; those are \['a'\]",
        ),
        ({"axis": "colour"}, "Input should be 'captions', 'steps' or 'label'"),
        ({"sedes": [1]}, "sedes: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_study_is_refused_with_its_place(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "studies.yaml"
    path.write_text(yaml.safe_dump({"studies": {"one": {**STUDY, **changes}}}))
    with pytest.raises(ValueError, match=sentence):
        load_ablations("tiny", path)


def test_names_that_are_not_there_are_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"study 'two' is not there; the studies are \['one'\]"):
        ablations().named("two")
    with pytest.raises(ValueError, match=r"no ablations of run 'small': .*known: \['tiny'\]"):
        load_ablations("small")
    with pytest.raises(ValueError, match="are no names; small letters"):
        Ablations.model_validate({"studies": {"My study": STUDY}})
    (tmp_path / "broken.yaml").write_text("studies: [")
    with pytest.raises(ValueError, match="is not YAML"):
        load_ablations("tiny", tmp_path / "broken.yaml")


def test_a_wrong_value_of_a_point_is_found_before_the_first_one() -> None:
    given = ablations(values={"student.until": 9999})
    with pytest.raises(ValueError, match=r"point 'a': (.|\n)*until: 9999, but the phases have"):
        check("tiny", trials(given, given.studies["one"], {}))


def test_a_study_may_leave_out_the_values_of_all_studies() -> None:
    given = Ablations.model_validate(
        {"values": {"dpo.steps": 9}, "studies": {"with": STUDY, "as-it-is": STUDY}}
    )
    apart = given.studies["as-it-is"].model_copy(update={"values_of_all": False})
    with_all, without = (
        trials(given, study, {})[0].overrides for study in (given.studies["with"], apart)
    )
    assert with_all == {"dpo.steps": 9, **without}


def test_the_round_of_the_tiny_run_goes_on_from_its_own_student() -> None:
    given = load_ablations("tiny")
    run = load_run("tiny")
    for trial in trials(given, given.studies["feedback"], {}):
        if trial.feedback is None:
            before = load_run("tiny", trial.overrides)
            assert student.slice_of(before.student) == student.slice_of(run.student)
            assert before.evaluation == run.evaluation


@pytest.mark.parametrize("path", sorted(ABLATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_of_the_repository_is_of_its_run(path: Path) -> None:
    given = load_ablations(path.stem)
    for study in given.studies.values():
        check(path.stem, trials(given, study, {}))


def test_the_same_values_are_the_same_training_in_every_study() -> None:
    given = load_ablations("tiny")
    first = {
        name: {t.label: t.overrides for t in trials(given, study, {}) if t.seed == 0}
        for name, study in given.studies.items()
    }
    whole = first["data-scale"]["100 %"]
    assert whole == first["iterations"]["all"]
    shorter = {**first["data-scale"]["3 %"], "student.until": 800}
    assert first["diversity"]["3 %, random"] == shorter
