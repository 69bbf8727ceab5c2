"""Leases live as long as their process; nothing begins while things are removed."""

import os
import subprocess
import sys

import pytest

from pipeline.leases import Lease, gate, leased, living


def test_a_stage_waits_while_things_are_removed(tmp_path):
    with gate(tmp_path):
        code = (
            "import sys; from pathlib import Path; from pipeline.leases import leased\n"
            "print('begins', flush=True)\n"
            "with leased(Path(sys.argv[1]), 'images', 'debug', []): print('runs', flush=True)"
        )
        stage = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert stage.stdout is not None
        assert stage.stdout.readline() == "begins\n"
        assert stage.poll() is None
    assert stage.communicate()[0] == "runs\n"


def test_leases_are_seen_while_they_are_held(tmp_path):
    with leased(tmp_path, "images", "debug", ["tables/a.lance"]):
        (lease,) = living(tmp_path)
        assert (lease.stage, lease.pid) == ("images", os.getpid())
    assert living(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "held"),
    [
        ("tables/a.lance", True),
        ("tables/a.lance/data/x", True),
        ("tables", True),
        ("tables/ab", False),
    ],
)
def test_a_lease_holds_what_is_in_its_places_and_around_them(place, held):
    assert Lease("images", "debug", 1, "here", ("tables/a.lance",)).holds(place) == held
