"""One hypothesis profile: no deadline, since the machine may be training beside the tests."""

from hypothesis import settings

settings.register_profile("lightgen", deadline=None)
settings.load_profile("lightgen")
