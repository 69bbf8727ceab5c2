"""The model card: values in their places, and no place left open."""

import re

import pytest
import yaml

from lightgen_model.config import debug, lightgen_published
from lightgen_model.model_card import NAMED, render

FULL = {name: f"the {name}" for name in NAMED} | {"run": "tiny", "student": "abc123"}


@pytest.mark.parametrize("about", [{}, FULL, {"licence": "MIT"}], ids=len)
def test_nothing_is_left_open(about: dict[str, str]) -> None:
    card = render(lightgen_published(), 792_244_352, about)
    assert not re.search(r"{{|}}|{%|\bNone\b|\bTODO\b|\[More", card)
    assert "792 million parameters" in card
    assert "256 x 256 pixels" in card
    assert all(value in card for value in about.values())
    assert ("not recorded" in card) == (about != FULL)


def test_the_hub_reads_its_metadata() -> None:
    data = yaml.safe_load(render(debug(), 1000, {"licence": "Apache-2.0"}).split("---")[1])
    assert data["license"] == "apache-2.0"
    assert data["pipeline_tag"] == "text-to-image"
    assert "license" not in yaml.safe_load(render(debug(), 1000, {}).split("---")[1])


def test_no_place_of_this_machine_is_told() -> None:
    card = render(debug(), 1000, {"autoencoder": "/home/somebody/models/vae"})
    assert "somebody" not in card
    assert "| autoencoder | vae |" in card
