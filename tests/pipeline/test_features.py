"""Features by the small VAE and T5: accepted pictures only, states without padding."""

import io
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC
from PIL import Image
from transformers import Dinov2Config, Dinov2Model

from lightgen_model.autoencoder import to_pixels
from pipeline import encoded_pictures, features
from pipeline.decoding import decode
from pipeline.encoded_pictures import resized
from pipeline.encoded_text import unpack
from pipeline.encoders import autoencoder, text_encoder
from pipeline.tables import read
from pipeline.verdicts import judged

INT8 = {"features.text_states": "int8"}


def test_accepted_pictures_alone_have_features_at_each_size(debug_run, walk):
    config = debug_run()
    upstream = walk(config)
    table = judged(config, upstream)
    for size in (64, 128):
        chosen = table["accepted"].to_numpy() & (table["width"].to_numpy() == size)
        expected = table.filter(chosen)["image_id"].to_pylist()
        rows = read(config.root, upstream["features"].snapshots[f"features_{size}"])
        assert rows["image_id"].to_pylist() == expected
        assert rows.schema.field("moments").type.list_size == 2 * 16 * (size // 8) ** 2


def test_moments_are_the_vaes_and_states_the_t5s(debug_run, walk):
    config = debug_run()
    upstream = walk(config)
    snapshots = upstream["features"].snapshots
    row = read(config.root, snapshots["features_128"]).to_pylist()[3]
    images = read(config.root, upstream["images"].snapshots["images"]).to_pylist()
    (image,) = (one for one in images if one["image_id"] == row["image_id"])
    pixels = to_pixels(torch.from_numpy(resized(image["image"], 128)[None]))
    moments = autoencoder(config.features, "cpu").encode(pixels).flatten().numpy()
    # Another batch size is another order of sums, which flat backgrounds make visible.
    differences = np.abs(np.array(row["moments"]) - moments)
    assert differences.max() < 0.1
    assert differences.mean() < 2e-3

    texts = {one["caption_id"]: one for one in read(config.root, snapshots["text"]).to_pylist()}
    text = texts[row["caption_id"]]
    states, lengths = text_encoder(config.features, "cpu").encode([image["caption"]])
    assert text["length"] == int(lengths[0])
    bits = torch.frombuffer(bytearray(text["states"]), dtype=torch.bfloat16)
    given = bits.view(text["length"], -1).float()
    assert torch.allclose(given, states[0, : text["length"]], rtol=1e-2, atol=1e-2)


def test_a_caption_has_text_once_when_one_of_its_pictures_is_accepted(debug_run, walk):
    config = debug_run({"images.seeds_per_caption": 2})
    upstream = walk(config)
    table = judged(config, upstream)
    accepted = table.filter(table["accepted"])["caption_id"].to_pylist()
    texts = read(config.root, upstream["features"].snapshots["text"])["caption_id"].to_pylist()
    assert sorted(texts) == sorted(set(accepted))
    assert len(texts) < len(accepted)


def test_a_smaller_table_is_made_from_the_larger_picture(debug_run, walk):
    config = debug_run({"images.image_sizes": [128], "images.max_captions": {}})
    upstream = walk(config)
    small, large = (
        read(config.root, upstream["features"].snapshots[f"features_{size}"]) for size in (64, 128)
    )
    assert small["image_id"].equals(large["image_id"])
    assert len(small) > 0


def test_two_sizes_of_one_picture_are_made_in_one_pass(debug_run, walk, make, monkeypatch):
    values = {"images.image_sizes": [128], "images.max_captions": {}}
    config, alone = debug_run(values), debug_run({**values, "features.image_sizes": [64]})
    upstream, decoded = walk(config, "verdicts"), []
    monkeypatch.setattr(
        encoded_pictures, "decode", lambda data: decoded.append(data) or decode(data)
    )
    manifest, made = make(features, config, upstream)
    pictures = [name for name in made if name.startswith("features_64+features_128:")]
    assert len(pictures) == len(upstream["images"].snapshots["images"].shards)
    assert len(decoded) == manifest.snapshots["features_64"].rows
    # The same rows as alone, but for the phase: a size does not depend on the others.
    single = alone.model_copy(update={"root": config.root + "-alone"})
    shutil.copytree(config.root, single.root, ignore=shutil.ignore_patterns("features_*"))
    assert (
        make(features, single, upstream)[0].snapshots["features_64"].content
        == manifest.snapshots["features_64"].content
    )


def test_means_and_eight_bits_are_what_moments_and_bfloat16_say(debug_run, walk, make):
    plain, small = debug_run(), debug_run({"features.latents": "means", **INT8})
    upstream = walk(plain)
    after, _ = make(features, small, {n: m for n, m in upstream.items() if n != "features"})
    moments = read(plain.root, upstream["features"].snapshots["features_64"])
    means = read(small.root, after.snapshots["features_64"])
    halves = [row[: 16 * 8 * 8] for row in moments["moments"].to_pylist()]
    assert means["means"].to_pylist() == halves
    exact = read(plain.root, upstream["features"].snapshots["text"]).to_pylist()
    eight = read(small.root, after.snapshots["text"]).to_pylist()
    assert [row["caption_id"] for row in eight] == [row["caption_id"] for row in exact]
    for one, other in zip(exact, eight, strict=True):
        states = unpack({"states": one["states"]}, one["length"]).float()
        stored = unpack({name: other[name] for name in ("states", "scales")}, one["length"])
        error = (stored - states).square().sum().sqrt() / states.square().sum().sqrt()
        assert other["error"] == pytest.approx(float(error), abs=2e-3)  # bfloat16 is off itself
        assert 0.004 < other["error"] < 0.01
    seen = features.describe(small, {**upstream, "features": after}, after)
    assert seen.facts["text states"].startswith("int8, relative error 0.6")


def test_a_posterior_that_is_not_there_is_asked_for_in_a_sentence(debug_run, walk, make, dc_ae):
    changes = {"features.autoencoder": dc_ae, "student.model.latent_channels": 8}
    strides = {"student.model.latent_stride": 4, "student.model.patch_size": 4}
    config = debug_run({**changes, **strides})
    upstream = walk(config, "verdicts")
    with pytest.raises(ValueError, match=r"moments, but AutoencoderDC has no posterior; .* means"):
        make(features, config, upstream)
    means = debug_run({**changes, **strides, "features.latents": "means"})
    manifest, _ = make(features, means, upstream)
    rows = read(means.root, manifest.snapshots["features_64"])
    assert rows.schema.field("means").type.list_size == 8 * 16 * 16
    assert features.describe(means, {**upstream, "features": manifest}, manifest).pictures


def test_a_rerun_encodes_nothing(debug_run, walk, make):
    config = debug_run()
    upstream = walk(config)
    above = {name: manifest for name, manifest in upstream.items() if name != "features"}
    assert features.find(config, above) == upstream["features"]
    assert make(features, config, above) == (upstream["features"], [])


def test_a_stricter_threshold_keeps_the_shards_it_does_not_touch(debug_run, walk, make):
    config, other = debug_run(), debug_run({"verdicts.min_alignment": 0.4})
    upstream = walk(config)
    judged_again = walk(other, "verdicts")
    assert judged_again["verdicts"].snapshots == upstream["verdicts"].snapshots
    assert features.find(other, judged_again) is None
    manifest, made = make(features, other, judged_again)
    same = np.array_equal(
        judged(config, upstream)["accepted"].to_numpy(),
        judged(other, judged_again)["accepted"].to_numpy(),
    )
    assert (made == []) == same
    assert set(manifest.snapshots) == {"text", "features_64", "features_128"}


def test_new_captions_are_encoded_alone(debug_run, walk, make):
    before = walk(debug_run())
    config = debug_run({"captions.sources.0.num_captions": 80, "images.max_captions": {128: 10}})
    upstream = walk(config, "verdicts")
    manifest, made = make(features, config, upstream)
    assert [name.split(":")[0] for name in made] == ["features_64", "text"]
    for name, snapshot in before["features"].snapshots.items():
        assert set(snapshot.shards) <= set(manifest.snapshots[name].shards)


def test_a_vae_that_does_not_fit_the_student_is_named(debug_run, walk, make):
    config = debug_run({"student.model.latent_channels": 8})
    upstream = walk(config, "verdicts")
    with pytest.raises(ValueError, match="latent_channels and latent_stride make 1024"):
        make(features, config, upstream)


def test_the_description_counts_and_shows(debug_run, walk):
    config = debug_run()
    upstream = walk(config)
    seen = features.describe(config, upstream, upstream["features"])
    snapshots = upstream["features"].snapshots
    assert seen.kept == snapshots["features_64"].rows + snapshots["features_128"].rows
    assert seen.rows_in == upstream["verdicts"].snapshots["verdicts"].rows
    assert Image.open(io.BytesIO(seen.pictures[0].jpeg)).width > 400


@pytest.fixture(scope="module")
def dc_ae(tmp_path_factory: pytest.TempPathFactory) -> str:
    """DC-AE's class in small: stride 4, eight channels, random weights."""
    torch.manual_seed(0)
    place, blocks = tmp_path_factory.mktemp("dc_ae"), ("ResBlock", "ResBlock", "EfficientViTBlock")
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (
            ("block_types", blocks),
            ("block_out_channels", (8, 16, 16)),
            ("layers_per_block", (1, 1, 1)),
            ("qkv_multiscales", ((), (), (3,))),
        )
    }
    vae = AutoencoderDC(latent_channels=8, attention_head_dim=8, scaling_factor=0.4, **sides)
    vae.save_pretrained(place)
    return str(place)


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    place = tmp_path_factory.mktemp("dino")
    Dinov2Model(Dinov2Config(**sizes, patch_size=14, image_size=56)).save_pretrained(place)
    return str(place)


def test_a_vision_model_adds_tables_and_changes_none(debug_run, walk, make, vision_model):
    config, plain = debug_run({"features.alignment_encoder": vision_model}), debug_run()
    before = walk(plain)["features"]
    upstream = walk(plain, "verdicts")
    assert features.find(config, upstream) is None
    after, made = make(features, config, upstream)
    passes = {name.split(":")[0] for name in made}
    assert passes == {"features_64+alignment_64", "features_128+alignment_128"}
    assert {name: after.snapshots[name] for name in before.snapshots} == before.snapshots
    for size in (64, 128):
        seen = read(config.root, after.snapshots[f"alignment_{size}"])
        rows = read(config.root, after.snapshots[f"features_{size}"])
        assert seen["image_id"].equals(rows["image_id"])
        tokens = (size // 16) ** 2
        assert {len(bits) for bits in seen["alignment"].to_pylist()} == {tokens * 16 * 2}
