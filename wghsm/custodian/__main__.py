"""The custodian's program, started by the supervisor."""

import os
import sys

from wghsm.custodian import main
from wghsm.ipc import Role
from wghsm.process import run_child

if __name__ == "__main__":
    code = run_child(Role.CUSTODIAN, main)
    sys.stderr.flush()
    # Past the vendor's exit handlers: they could wait for ever for a thread that is stuck in the module.
    os._exit(code)
