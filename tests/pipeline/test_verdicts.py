"""Verdicts by the exact detector: a row a picture, thresholds applied by the reader."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline import captions, images, verdicts
from pipeline.config import ShapesJudge, VerdictsConfig, load_run
from pipeline.images import png
from pipeline.judges import Verdict
from pipeline.tables import read
from pipeline.verdicts import accepted, decoded, judge_images, judged_pieces, reasons


class StrictJudge:
    name, revision, in_flight = "strict", "1", 1

    def judge(self, pictures, captions):
        return [Verdict(0.25, 1.0, f"not {caption}", "missing object") for caption in captions]


def thresholds(alignment: float = 0.5, quality: float = 0.5) -> VerdictsConfig:
    judge = ShapesJudge(kind="shapes")
    return VerdictsConfig(judge=judge, min_alignment=alignment, min_quality=quality)


def test_every_picture_has_a_verdict_in_order_and_wrong_ones_a_reason(debug_run, walk):
    config = debug_run()
    upstream = walk(config, "verdicts")
    pictures = read(config.root, upstream["images"].snapshots["images"], ["image_id"])
    said = read(config.root, upstream["verdicts"].snapshots["verdicts"])
    assert said["image_id"].equals(pictures["image_id"])
    passed = accepted(config.verdicts, said)
    assert 0 < passed.sum() < len(said)
    why = reasons(config.verdicts, said)
    assert [bool(text) for text in why] == [not fine for fine in passed]


def test_pictures_of_a_quarantined_shard_stay_and_are_never_accepted(debug_run, walk):
    config = debug_run({"verdicts.min_alignment": 0, "verdicts.min_quality": 0})
    upstream = walk(config, "verdicts")
    whole, shards = verdicts.judged(config, upstream), upstream["verdicts"].snapshots["verdicts"]
    assert len(shards.shards) > 1
    without = verdicts.commit(config, upstream, shards.shards[1:])
    lacking = verdicts.judged(config, {**upstream, "verdicts": without})
    gone = shards.shards[0].rows
    assert lacking["image_id"].equals(whole["image_id"])
    assert set(lacking["why"][:gone].to_pylist()) == {"in a quarantined shard"}
    assert not any(lacking["accepted"][:gone].to_pylist())
    assert lacking.slice(gone).equals(whole.slice(gone))


def test_a_changed_threshold_judges_nothing_again_and_is_seen_downstream(debug_run, walk):
    config, strict = debug_run(), debug_run({"verdicts.min_quality": 1.0})
    upstream = walk(config, "verdicts")
    found = verdicts.find(strict, upstream)
    assert found is not None
    assert found.snapshots == upstream["verdicts"].snapshots
    assert found.content != upstream["verdicts"].content
    assert verdicts.find(config, upstream) == upstream["verdicts"]


def test_what_is_no_picture_is_a_row_that_no_threshold_accepts():
    whole = png(Image.new("RGB", (64, 64)))
    data = [whole, b"GIF89a nonsense", None, whole[:60], b""]
    table = pa.table(
        {
            "image_id": list("abcde"),
            "caption_id": list("abcde"),
            "caption": ["a red circle"] * 5,
            "image": pa.array(data, pa.large_binary()),
            "reason": ["", "", "refused", "", ""],
        }
    )
    rows = pa.Table.from_batches([judge_images(StrictJudge(), table)])
    broken, nothing = "does not decode", "not drawn"
    assert rows["reason"].to_pylist() == ["missing object", broken, nothing, broken, broken]
    assert rows["words"][2].as_py() == "the teacher drew nothing: refused"
    assert accepted(thresholds(0, 0), rows).tolist() == [True] + [False] * 4


def test_an_answer_that_nobody_can_read_is_never_accepted():
    reason = pa.array(["unparsable answer", "no answer", "refused by the server", "artefacts"])
    scores = pa.array([0.0] * 4, pa.float32())
    rows = pa.table({"alignment": scores, "quality": scores, "reason": reason})
    assert accepted(thresholds(0, 0), rows).tolist() == [False] * 3 + [True]


class SlowJudge:
    """Holds a hundred pictures at once; the first piece is the last to be done."""

    name, revision, in_flight = "slow", "1", 100

    def __init__(self):
        self.begun, self.many = 0, threading.Event()

    def judge(self, pictures, captions):
        self.begun += 1
        if self.begun == 3:
            self.many.set()
        assert self.many.wait(10), "nothing is judged beside the first piece"
        return [Verdict(1.0, 1.0, caption, "", "said") for caption in captions]


def test_a_judge_that_holds_many_is_kept_busy_and_order_is_kept():
    data = png(Image.new("RGB", (8, 8)))
    names = [str(number) for number in range(240)]
    columns = {"image_id": names, "caption_id": names, "caption": names}
    columns |= {"image": pa.array([data] * 240, pa.large_binary()), "reason": [""] * 240}
    table = pa.table(columns)
    pieces = (table.slice(first, 40) for first in range(0, 240, 40))
    rows = pa.Table.from_batches(judged_pieces(SlowJudge(), pieces))
    assert rows["words"].to_pylist() == rows["image_id"].to_pylist() == names
    assert set(rows["answer"].to_pylist()) == {"said"}


def test_a_score_equal_to_the_threshold_passes():
    rows = pa.table(
        {
            "alignment": pa.array([0.7, 0.69, 0.9], pa.float32()),
            "quality": pa.array([0.7, 0.9, 0.1], pa.float32()),
            "reason": ["", "", ""],
        }
    )
    assert accepted(thresholds(0.7, 0.7), rows).tolist() == [True, False, False]
    assert reasons(thresholds(0.7, 0.7), rows) == ["", "low alignment", "low quality"]


@given(st.data())
def test_damaged_bytes_are_a_picture_or_none(data):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    whole = bytearray(png(Image.fromarray(pixels)))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)):
        whole[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(whole)))
    picture = decoded(bytes(whole[:end]))
    assert picture is None or picture.mode == "RGB"


def test_only_new_pictures_are_judged(debug_run, walk, make):
    values = {"images.image_sizes": [64], "features.image_sizes": [64]}
    config = debug_run(values)
    upstream = walk(config, "verdicts")
    assert make(verdicts, config, upstream) == (upstream["verdicts"], [])
    both = debug_run()
    upstream["images"], _ = make(images, both, upstream)
    manifest, made = make(verdicts, both, upstream)
    assert len(made) == 1
    old = upstream["verdicts"].snapshots["verdicts"].shards
    assert manifest.snapshots["verdicts"].shards[: len(old)] == old


def test_the_description_counts_what_the_tables_hold(debug_run, walk):
    config = debug_run()
    upstream = walk(config, "verdicts")
    seen = verdicts.describe(config, upstream, upstream["verdicts"])
    said = read(config.root, upstream["verdicts"].snapshots["verdicts"])
    passed = accepted(config.verdicts, said)
    assert (seen.rows_in, seen.kept) == (len(said), int(passed.sum()))
    assert sum(seen.reasons.values()) == int((~passed).sum())
    assert seen.facts["judge"] == "shapes"
    widths = np.unique([row[0] for row in seen.tables[0].rows])
    assert widths.tolist() == ["128 px", "64 px"]
    assert [picture.title for picture in seen.pictures] == ["Kept and rejected", "At the margin"]
    by_half = next(row for row in seen.tables[1].rows if row[0] == "0.5")
    assert {int(count) for count in by_half[1:4]} == {seen.kept}  # the run's own thresholds
    assert len(seen.plots) == 2


class Clip:
    """Scores by the picture's width and the caption's length, as no caption's judge would."""

    name, revision, in_flight = "some-clip", "1", 1

    def judge(self, pictures, captions):
        return [
            Verdict(len(caption) % 10 / 10, picture.width / 128, "", "")
            for picture, caption in zip(pictures, captions, strict=True)
        ]


@pytest.fixture
def with_clip(debug_run, monkeypatch, tmp_path):
    """The debug run with a CLIP beside its judge."""
    build = verdicts.judges.build
    monkeypatch.setattr(
        verdicts.judges, "build", lambda c, memo: Clip() if c.kind == "clip" else build(c, memo)
    )
    monkeypatch.setattr(verdicts.judges, "identity", lambda c: c.model_dump(mode="json"))
    clip = {"kind": "clip", "weights": "w.safetensors", "aesthetic": "a.safetensors"}
    return lambda **values: debug_run(
        {"verdicts.clip": clip} | {f"verdicts.{name}": v for name, v in values.items()},
        tmp_path / "clip",
    )


def test_a_clips_scores_are_further_columns(with_clip, walk):
    config = with_clip()
    upstream = walk(config, "verdicts")
    assert list(upstream["verdicts"].snapshots) == ["verdicts", "clip"]
    table = verdicts.judged(config, upstream)
    captions = read(config.root, upstream["images"].snapshots["images"], ["caption"])["caption"]
    assert np.allclose(table["clip"].to_numpy(), [len(c.as_py()) % 10 / 10 for c in captions])
    assert np.allclose(table["aesthetic"].to_numpy(), table["width"].to_numpy() / 128)
    said = read(config.root, upstream["verdicts"].snapshots["verdicts"])
    assert table["accepted"].to_pylist() == accepted(config.verdicts, said).tolist()
    seen = verdicts.describe(config, upstream, upstream["verdicts"])
    titles = [plot.title for plot in seen.plots]
    assert titles[2:] == ["CLIPScore", "CLIP's aesthetic score"]
    assert seen.tables[1].header[-2:] == ("kept by all", "share")
    assert seen.facts["clip"] == "some-clip"


def test_thresholds_on_a_clips_scores_judge_nothing_again(with_clip, walk):
    upstream = walk(with_clip(), "verdicts")
    strict = with_clip(min_clip=0.5, min_aesthetic=1.0)
    found = verdicts.find(strict, upstream)
    assert found is not None
    assert found.snapshots == upstream["verdicts"].snapshots
    assert found.content != upstream["verdicts"].content
    table = verdicts.judged(strict, upstream).to_pylist()
    before = verdicts.judged(with_clip(), upstream)["accepted"].to_pylist()
    good = [row["clip"] >= 0.5 and row["aesthetic"] >= 1 for row in table]
    assert [row["accepted"] for row in table] == [
        a and b for a, b in zip(before, good, strict=True)
    ]
    assert {row["why"] for row in table} >= {"low CLIP score", "low aesthetic score"}
    assert all(bool(row["why"]) != row["accepted"] for row in table)


@pytest.mark.parametrize("name", ["min_clip", "min_aesthetic"])
def test_a_threshold_without_its_scores_is_named(debug_run, name):
    with pytest.raises(ValueError, match=f"{name}: needs verdicts.clip"):
        debug_run({f"verdicts.{name}": 0.3})


def test_stages_killed_at_any_moment_leave_the_same_files(debug_run, walk, tmp_path):
    walk(debug_run(), "verdicts")
    expected = sums(tmp_path / "artifacts")
    debug_run(root=tmp_path / "killed")
    program = [sys.executable, __file__, str(tmp_path / "debug.yaml")]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    for seconds in (0.05, 0.15, 0.3, 0.5):
        child = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()  # it begins
        time.sleep(seconds)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    subprocess.run(program, env=environment, check=True)
    assert sums(tmp_path / "killed") == expected


def sums(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.glob("tables/*/data/*.lance")
    }


if __name__ == "__main__":
    print("begins", flush=True)
    run, above = load_run(sys.argv[1]), {}
    for stage in (captions, images, verdicts):
        made = [
            shard
            for work in stage.plan(run, above)
            for shard in stage.make(run, above, work, lambda rows: None)
        ]
        above[stage.STAGE] = stage.commit(run, above, made)
