"""The custodian's program, started by the supervisor."""

import sys

from wghsm.custodian import main
from wghsm.ipc import Role
from wghsm.process import run_child

if __name__ == "__main__":
    sys.exit(run_child(Role.CUSTODIAN, main))
