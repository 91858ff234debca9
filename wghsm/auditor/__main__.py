"""The auditor: started by the supervisor as `python -m wghsm.auditor --channel FD`."""

import sys

from wghsm.ipc import Role
from wghsm.process import run_child

from .start import main

if __name__ == "__main__":
    sys.exit(run_child(Role.AUDITOR, main))
