"""One hypothesis profile, a store for a bucket."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings

# No deadline, since the machine may be training beside the tests.
settings.register_profile("lightgen", deadline=None)
settings.load_profile("lightgen")


@pytest.fixture(scope="session")
def _object_store() -> Iterator[Any]:
    from tests.pipeline.object_store import ObjectStore

    store = ObjectStore()
    yield store
    store.close()


@pytest.fixture
def bucket(
    _object_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str]:
    """`bucket("a")`: the root `s3://<a bucket of the test>/a` in a store of this machine."""
    import httpx

    for name, value in _object_store.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LIGHTGEN_CACHE", str(tmp_path / "near"))
    name = f"test-{uuid4().hex[:12]}"
    assert httpx.put(f"{_object_store.url}/{name}").status_code == 200
    return lambda prefix: f"s3://{name}/{prefix}"


@pytest.fixture
def object_store(_object_store: Any, bucket: Any) -> Iterator[Any]:
    """The store itself, to watch it or to make it worse."""
    yield _object_store
    _object_store.conditional, _object_store.forbidden = True, False
    _object_store.before = lambda request: None
