"""Where a Ray cluster cannot be reached, one sentence says why before Ray tries for minutes."""

import socket
from collections.abc import Iterator

import pytest

from pipeline import addresses, preflight
from pipeline.addresses import unreachable
from pipeline.config import load_run


@pytest.fixture(autouse=True)
def no_node_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "NODE_PROCESS", "no process is called this")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def head() -> Iterator[str]:
    """A port where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_client_needs_no_node_and_a_driver_one(
    head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unreachable(f"ray://{head}") == ""
    said = unreachable(head)
    assert said.startswith(f"engine.ray.address: '{head}': this machine is none of that cluster")
    assert f"ray start --address={head}, or take Ray's client, ray://127.0.0.1:10001" in said
    monkeypatch.setattr(addresses, "NODE_PROCESS", addresses.psutil.Process().name())
    assert unreachable(head) == unreachable("auto") == ""


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "no-such-host.invalid:1"])
def test_where_nobody_listens_the_remedy_is_told(address: str) -> None:
    said = unreachable(address)
    assert said.startswith(f"engine.ray.address: '{address}': nobody answers there (")
    assert "ray start --head" in said
    assert ("10001" in said) == address.startswith("ray://")


def test_auto_is_the_cluster_of_this_machine_or_of_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "'auto': no Ray node runs on this machine" in unreachable("auto")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert "'auto', by RAY_ADDRESS '127.0.0.1:9': nobody answers" in unreachable("auto")


def test_a_run_on_a_cluster_that_is_not_there_is_refused_before_any_stage() -> None:
    pytest.importorskip("prefect_ray", reason="the extra `ray` is not installed")
    there = {"task_runner": "ray", "ray": {"address": "127.0.0.1:9"}}
    with pytest.raises(ValueError, match=r"cannot start .*\n.*'127.0.0.1:9': nobody answers there"):
        preflight.check(load_run("tiny", {"engine": there}), ["captions", "images"])
    preflight.check(load_run("tiny", {"engine": there}), ["captions"])
