"""What holds for all tests: a slow example is no failure, as no test may depend on speed."""

from hypothesis import settings

settings.register_profile("wghsm", deadline=None)
settings.load_profile("wghsm")
