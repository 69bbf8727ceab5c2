"""Verification: whatever was damaged is named and moved aside, and only that is made again."""

import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.ledger import entries
from pipeline.places import data_file
from pipeline.verification import markdown, sentence, verify
from tests.pipeline.conftest import run_whole


def named(root: Path) -> list[Path]:
    """Every file that a record names, and the records."""
    skipped = {".lock", "latest_version_hint.json"}
    folders = [root / f for f in ("tables", "snapshots", "checkpoints", "ledger", "descriptions")]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.name not in skipped)


def sums(root: Path) -> dict[str, str]:
    """Data files and weights, by place."""
    paths = [*root.glob("tables/*/data/*.lance"), *root.glob("checkpoints/*/*/*.safetensors")]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def flip(path: Path, place: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def places(verified) -> list[str]:
    return [damage.place for damage in verified.damages]


def test_a_whole_root_is_whole(whole):
    verified = verify(Path(whole.root))
    assert verified.damages == ()
    assert "all as they were written" in sentence(verified)
    assert verified.rows > 0
    assert not (Path(whole.root) / "quarantine").exists()


def test_a_hundred_flipped_bits_are_a_hundred_found(whole):
    """One at a time at a random place of a random file: data, weights, records, Lance's own."""
    root, dice, found = Path(whole.root), random.Random(7), 0
    files = named(root)
    for _ in range(100):
        path = dice.choice(files)
        place, bit = dice.randrange(path.stat().st_size), dice.randrange(8)
        flip(path, place, bit)
        seen = places(verify(root, quarantine=False))
        assert seen == [str(path.relative_to(root))], f"{path} bit {bit} of byte {place}"
        found += len(seen)
        flip(path, place, bit)
    assert found == 100


def test_many_flipped_bits_at_once_are_named_and_made_again(whole):
    """Only an entry and its copy together are beyond repair. Stages that draw slowly are spared."""
    root, dice = Path(whole.root), random.Random(11)
    before = sums(root)
    slow = re.compile("copies|scores-|samples-|preferences-|evaluate-|features|text-")
    files = [path for path in named(root) if not slow.search(str(path.relative_to(root)))]
    victims = sorted({dice.choice(files) for _ in range(100)})
    assert len(victims) > len(files) / 2
    for path in victims:
        flip(path, dice.randrange(path.stat().st_size), dice.randrange(8))
    damages = verify(root).damages
    assert {root / damage.place for damage in damages} >= set(victims)
    run_whole(whole)
    assert sums(root) == before
    assert verify(root).damages == ()
    assert len(list((root / "quarantine").iterdir())) >= 1


@pytest.mark.parametrize("harm", ["truncated", "missing", "flipped"])
def test_only_the_damaged_shard_is_made_again(whole, harm):
    root = Path(whole.root)
    before = sums(root)
    snapshot = next(e for e in entries(root) if e.stage == "images").tables["images"]
    victim = data_file(root, snapshot.table, snapshot.shards[1].name)
    if harm == "missing":
        victim.unlink()
    elif harm == "truncated":
        victim.write_bytes(victim.read_bytes()[:-10])
    else:
        flip(victim, victim.stat().st_size // 2, 3)
    verified = verify(root)
    assert places(verified) == [str(victim.relative_to(root))]
    assert bool(verified.damages[0].moved_to) == (harm != "missing")
    _, made = run_whole(whole)
    assert made == {"images": [snapshot.shards[1].name]}
    assert sums(root) == before
    assert verify(root).damages == ()


def test_an_empty_manifest_of_lance_is_moved_and_the_version_committed_again(whole):
    root = Path(whole.root)
    before = sums(root)
    manifest = next((root / "tables").glob("images-*/_versions/*.manifest"))
    manifest.write_bytes(b"")
    (damage,) = verify(root).damages
    assert (damage.place, damage.what) == (str(manifest.relative_to(root)), "is empty")
    _, made = run_whole(whole)
    assert made == {"images": []}
    assert sums(root) == before
    assert verify(root).damages == ()


def test_an_empty_manifest_of_ours_is_moved_and_written_again(whole):
    root = Path(whole.root)
    records = [
        next((root / "snapshots").glob("images-*.json")),
        next((root / "checkpoints").glob("student-*/manifest.json")),
        next((root / "ledger").glob("verdicts-*.json")),
        next((root / "tables").glob("verdicts-*/sums/*.json")),
    ]
    for path in records:
        path.write_bytes(b"")
    found = {damage.place: damage.what for damage in verify(root).damages}
    assert found == {str(path.relative_to(root)): "is empty" for path in records}
    _, made = run_whole(whole)
    assert made == {"images": [], "student": ["weights"]}
    assert all(path.stat().st_size for path in records)
    assert verify(root).damages == ()


def test_damaged_weights_are_trained_to_their_end_again(whole):
    root = Path(whole.root)
    before = sums(root)
    weights = next((root / "checkpoints").glob("dpo-*/final/model.safetensors"))
    flip(weights, 900, 1)
    (damage,) = verify(root).damages
    assert damage.then == "the next run ends this training anew from its newest state"
    assert run_whole(whole)[1] == {"dpo": ["weights"]}
    assert sums(root) == before


def test_a_lost_log_of_a_training_costs_no_training(whole):
    root = Path(whole.root)
    (place,) = {e.manifest.checkpoints["aligned"] for e in entries(root) if e.stage == "dpo"}
    log = root / place / ".." / "run.yaml"
    assert log.resolve().is_file()
    curve = (root / place).parent / "curve.jsonl"
    curve.write_text("{}\n")
    entered = next((root / "ledger").glob("dpo-*.json"))
    entered.unlink()
    run_whole(whole)
    curve.write_text("{]\n")
    (damage,) = verify(root).damages
    assert damage.then.startswith("lost")
    assert run_whole(whole)[1] == {}
    assert verify(root).damages == ()


def test_looking_moves_nothing(whole):
    root = Path(whole.root)
    victim = next((root / "tables").glob("images-*/data/*.lance"))
    flip(victim, 100, 0)
    assert len(verify(root, quarantine=False).damages) == 1
    assert victim.exists()
    assert not (root / "quarantine").exists()


def test_the_command_names_the_file_and_ends_with_one(whole):
    root = Path(whole.root)
    victim = next((root / "tables").glob("scores-*/data/*.lance"))
    flip(victim, 100, 0)
    words = [sys.executable, "-m", "pipeline.verification", "--root", str(root), "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    (damage,) = json.loads(done.stdout)["damages"]
    assert damage["place"] == str(victim.relative_to(root))
    assert Path(damage["moved_to"]).is_file()


def test_a_root_without_records_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no records"):
        verify(tmp_path)


def test_the_page_counts_what_it_does_not_show(whole):
    root = Path(whole.root)
    shutil.rmtree(next((root / "tables").glob("images-*")) / "data")
    page = markdown(verify(root))
    assert "is missing" in page
    assert "the next run makes this shard again" in page
