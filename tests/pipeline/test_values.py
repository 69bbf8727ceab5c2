"""Values one by one, and the models among them."""

from pipeline.values import flattened, models_of


def test_values_are_flattened_as_overrides_name_them():
    values = {"a": {"b": 1}, "c": [{"d": 2}], "e": [3, 4]}
    assert dict(flattened(values, "x")) == {"x.a.b": 1, "x.c.0.d": 2, "x.e": [3, 4]}


def test_models_are_found_among_values_with_revision_and_licence(tmp_path):
    (tmp_path / "weights").write_bytes(b"w")
    values = {
        "teacher": {"repository": "some/teacher", "revision": "abc", "licence": "Apache-2.0"},
        "autoencoder": str(tmp_path),
        "autoencoder_revision": None,
    }
    found = models_of("s", values)
    assert found["s.teacher.repository"] == {
        "name": "some/teacher",
        "revision": "abc",
        "licence": "Apache-2.0",
    }
    assert len(found["s.autoencoder"]["sha256"]) == 64
