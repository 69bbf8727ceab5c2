"""Files of weights: damage is named, and code in a pickle does not run."""

import argparse
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightgen_model.published import load_published
from lightgen_model.weights import finite, read_pickle
from tests.lightgen_model.golden import LOAD, filled, released


@pytest.mark.parametrize("name", ["c.pth", "c.safetensors"])
@pytest.mark.parametrize("kept", [0, 100, -100])
def test_a_truncated_file_is_named(tmp_path: Path, name: str, kept: int) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        released(path)
    else:
        save_file(filled(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{name} cannot be read"):
        load_published(path, **LOAD)


class Malice:
    """Runs a command when a plain unpickler meets it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "ran"
    values = {"model": filled(), "args": Malice(f"touch {trace}")}
    torch.save(values, tmp_path / "bad.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"bad\.pth cannot be read as weights alone"):
        load_published(tmp_path / "bad.pth", **LOAD)
    assert not trace.exists()
    torch.load(tmp_path / "bad.pth", weights_only=False)
    assert trace.exists()  # the test's own pickle does run where it is let


def test_a_namespace_is_read_and_is_allowed_nowhere_else(tmp_path: Path) -> None:
    values = read_pickle(released(tmp_path / "c.pth"))
    assert isinstance(values, dict)
    assert values["args"] == argparse.Namespace(lr=1e-4, model="fluid")
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_one_value_that_is_no_number_is_seen(value: float, dtype: torch.dtype) -> None:
    tensor = torch.full((3, 5), torch.finfo(dtype).max, dtype=dtype)
    assert finite(tensor)
    tensor[1, 2] = value
    assert not finite(tensor)
