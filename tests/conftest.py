"""One hypothesis profile, and how tests are shared out between processes."""

import pytest
from hypothesis import settings

# No deadline, since the machine may be training beside the tests.
settings.register_profile("lightgen", deadline=None)
settings.load_profile("lightgen")

SERVING = ("flows", "infra")  # rooms whose tests start servers: they share one process


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file stay together, for what they share; `pytest -n 2 --dist loadgroup`."""
    for item in items:
        room = item.path.parent.name
        group = "serving" if room in SERVING else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
