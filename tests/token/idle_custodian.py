"""The custodian's program that soon looks at a token that nobody uses."""

import os
import sys

from wghsm.custodian import TokenTimes, main
from wghsm.ipc import Role
from wghsm.process import run_child

MILLISECOND = 1_000_000
TIMES = TokenTimes(first_pause=200 * MILLISECOND, longest_pause=400 * MILLISECOND, idle=100 * MILLISECOND)

if __name__ == "__main__":
    code = run_child(Role.CUSTODIAN, lambda child: main(child, None, TIMES))
    sys.stderr.flush()
    os._exit(code)
