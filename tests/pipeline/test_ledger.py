"""The ledger: one entry for what was asked, never two, and none that a disk made up."""

from pathlib import Path

import pytest

from pipeline import ledger
from pipeline.ledger import entries, entry_named, newest, with_inputs
from pipeline.maker import code_version
from pipeline.upstream import READS
from tests.pipeline.conftest import run_whole


def test_each_stage_is_entered_once_with_what_it_read(whole):
    root = Path(whole.root)
    found = {entry.stage: entry for entry in entries(root)}
    assert list(found) == list(READS)
    for stage, entry in found.items():
        assert entry.inputs == {above: found[above].name for above in READS[stage]}
        assert entry.maker["code"] == code_version()
    assert with_inputs(root, found["student"]).keys() == {"captions", "images", "verdicts",
                                                          "features", "student"}  # fmt: skip


def test_a_rerun_enters_nothing_new_but_when_it_was_asked_for(whole):
    root = Path(whole.root)
    before = entries(root)
    run_whole(whole)
    after = entries(root)
    assert [e.name for e in after] == [e.name for e in before]
    assert [e.written for e in after] == [e.written for e in before]
    assert all(new.asked > old.asked for new, old in zip(after, before, strict=True))


def test_other_values_are_another_entry_and_the_newest_is_the_last_asked_for(whole, debug_run):
    root = Path(whole.root)
    first = newest(root, stage="dpo")
    run_whole(debug_run({"dpo.beta": 7.0}))
    assert newest(root, stage="dpo").values["beta"] == 7.0
    run_whole(whole)
    assert newest(root, stage="dpo").name == first.name
    assert newest(root).stage == "evaluate"


def test_who_made_something_is_not_who_found_it(whole, debug_run, monkeypatch):
    root = Path(whole.root)
    made_by = newest(root, stage="student").maker
    monkeypatch.setattr(ledger, "maker", lambda: {"code": "another"})
    run_whole(debug_run({"student.log_every": 3}), "student")
    assert newest(root, stage="student").values["log_every"] == 3
    assert newest(root, stage="student").maker == made_by
    run_whole(debug_run({"images.teacher.error_rate": 0.7}), "images")
    assert newest(root, stage="images").maker == {"code": "another"}


def test_an_earlier_round_stands_in_the_record_beside_the_stages(whole):
    """As on-policy rounds hand it on: the last round's weights under another name."""
    root = Path(whole.root)
    found = {entry.stage: entry for entry in entries(root)}
    manifests = {stage: entry.manifest for stage, entry in found.items() if stage != "evaluate"}
    policy = manifests["dpo"]
    names = ledger.enter(whole, {**manifests, "policy": policy, "dpo": manifests["dpo"]})
    second = entry_named(root, names["dpo"])
    assert second.inputs["policy"] == found["dpo"].name != second.name
    above = with_inputs(root, second)
    assert above["policy"] == found["dpo"]
    assert above["dpo"] == second
    assert list(above)[-1] == "dpo"


def test_a_lost_entry_is_read_from_its_copy(whole):
    root = Path(whole.root)
    entry = newest(root, stage="images")
    (root / "ledger" / f"{entry.name}.json").write_bytes(b"")
    assert entry_named(root, entry.name) == entry
    assert ledger.mend(root, entry.name)
    assert entry_named(root, entry.name) == entry


def test_damaged_weights_are_never_entered_as_whole(whole, debug_run):
    weights = next(Path(whole.root).glob("checkpoints/student-*/final/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=f"{weights} has another checksum"):
        run_whole(debug_run({"student.log_every": 3}), "student")


def test_unknown_names_are_told_with_those_that_are_there(whole):
    with pytest.raises(ValueError, match=r"0 entries .* are called 'x'; the last are"):
        entry_named(Path(whole.root), "x")
    with pytest.raises(ValueError, match="no entry of a stage of night"):
        newest(Path(whole.root), "night")
