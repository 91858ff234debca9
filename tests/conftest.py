"""What holds for all tests: a slow example is no failure, Ctrl-C can be heard, and output is buffered as anywhere."""

import os
import signal

from hypothesis import settings

# No test may depend on speed.
settings.register_profile("wghsm", deadline=None)
settings.load_profile("wghsm")

# A shell without job control starts what runs beside it with Ctrl-C ignored, and every program that a test then starts
# would inherit that, also one that gets a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.pop("PYTHONUNBUFFERED", None)
