"""States: how many stay, and which ones are refused."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from accelerate import Accelerator

from pipeline.roots import near, root_of
from pipeline.seals import sum_of
from pipeline.states import check_position, hand_out, name_of, saved
from tests.pipeline.test_training import train


def steps(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("state-")) for path in saved(folder)]


def test_the_newest_states_and_those_to_keep_for_good_stay(tmp_path: Path) -> None:
    train(tmp_path / "one", steps=21)
    train(tmp_path / "three", steps=21, keep_last=3)
    train(tmp_path / "eighths", steps=21, keep_last=2, keep_every=8)
    assert steps(tmp_path / "one") == [21]
    assert steps(tmp_path / "three") == [16, 20, 21]
    assert steps(tmp_path / "eighths") == [8, 16, 20, 21]
    assert [path.name for path in (tmp_path / "one").glob(".*")] == []


@pytest.mark.parametrize("left", [0, 3, 1000, -1])
def test_a_damaged_state_is_named_and_the_one_before_goes_on(tmp_path: Path, left: int) -> None:
    train(tmp_path, steps=8, keep_last=2)
    state = saved(tmp_path)[-1]
    state.write_bytes(state.read_bytes()[:left])
    with pytest.raises(ValueError, match=rf"(?s){state} is damaged .* delete it"):
        train(tmp_path, steps=8)
    state.unlink()
    train(tmp_path, steps=8, keep_last=2)
    assert steps(tmp_path) == [4, 8]


def test_a_state_with_one_flipped_bit_is_refused(tmp_path: Path) -> None:
    train(tmp_path, steps=8)
    state = saved(tmp_path)[-1]
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{state} is damaged \(it has another checksum"):
        train(tmp_path, steps=12)


def test_a_state_of_other_data_is_refused() -> None:
    then = {"table": "features_64-ab", "version": 3, "seed": 0}
    check_position(Path("state"), then, dict(then))
    with pytest.raises(ValueError, match=r"state was made with other data \(version 3 against 4\)"):
        check_position(Path("state"), then, {**then, "version": 4})


def test_a_table_made_again_is_known_by_its_content() -> None:
    then = {"table": "features_64-ab", "version": 3, "content": "c0", "seed": 0}
    check_position(Path("state"), then, {**then, "version": 4})
    with pytest.raises(ValueError, match=r"other data \(content 'c0' against 'c1'\)"):
        check_position(Path("state"), then, {**then, "content": "c1"})


def test_a_state_from_before_contents_is_known_by_its_version() -> None:
    then = {"table": "features_64-ab", "version": 3, "seed": 0}
    check_position(Path("state"), then, {**then, "content": "c0"})
    with pytest.raises(ValueError, match=r"version 3 against 4; .* number of a version stood for"):
        check_position(Path("state"), then, {**then, "version": 4, "content": "c0"})


def test_every_machine_beside_a_bucket_goes_on_from_the_same_state(
    bucket: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    phase = root_of(bucket("run")) / "checkpoints/student-a/phase-0-64"

    def machine(name: str, main: bool, *steps: int) -> list[str]:
        """Its states after all have agreed; those of `steps` it had before."""
        monkeypatch.setenv("LIGHTGEN_CACHE", str(tmp_path / name))
        folder = near(phase)
        folder.mkdir(parents=True)
        for step in steps:
            path = folder / name_of(step)
            path.write_bytes(name.encode())
            sum_of(path).write_text("{}")
        told = {"num_processes": 2, "is_main_process": main, "wait_for_everyone": lambda: None}
        hand_out(folder, cast(Accelerator, SimpleNamespace(**told)))
        return [f"{path.name} of {path.read_text()}" for path in saved(folder)]

    # The second was the first before it died, and its step 12 never reached the bucket.
    assert machine("first", True, 4, 8) == [f"{name_of(step)} of first" for step in (4, 8)]
    assert machine("second", False, 8, 12) == [f"{name_of(step)} of first" for step in (4, 8)]
