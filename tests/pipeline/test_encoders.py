"""Which weights a run uses, told without loading them."""

import shutil
from pathlib import Path

from pipeline.encoders import autoencoder_identity, batch_size, weights_identity


def test_the_same_weights_elsewhere_are_the_same_and_others_are_not(tmp_path, debug_run):
    place = Path(debug_run().features.text_encoder)
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    assert weights_identity(str(copy), None) == weights_identity(str(place), None)
    (copy / "config.json").write_text("{}")
    assert weights_identity(str(copy), None) != weights_identity(str(place), None)
    assert weights_identity("some/repository", "abc") == "some/repository@abc"


def test_another_subfolder_is_another_autoencoder(debug_run):
    plain = debug_run().features
    inside = debug_run({"features.autoencoder_subfolder": "vae"}).features
    assert autoencoder_identity(inside) == autoencoder_identity(plain) + "/vae"


def test_a_table_keeps_its_batch_size_and_says_whose_it_is(debug_run):
    values = debug_run().features
    assert batch_size(values, "features_64") is batch_size(values, "features_64")
    assert batch_size(values, "features_64") is not batch_size(values, "features_128")
    assert "features.autoencoder: " in batch_size(values, "features_64").refusal
    assert batch_size(values, "text").refusal == f"features.text_encoder: {values.text_encoder}"
