"""The custodian's program with short times for its token, so that tests of recovery need not wait for minutes."""

import os
import sys

from wghsm.custodian import TokenTimes, main
from wghsm.ipc import Role
from wghsm.process import run_child

MILLISECOND = 1_000_000
TIMES = TokenTimes(
    first_pause=200 * MILLISECOND,
    longest_pause=400 * MILLISECOND,
    settle=1 * MILLISECOND,
    stuck=1500 * MILLISECOND,
    stuck_repair=3000 * MILLISECOND,
    look_back=300 * MILLISECOND,
    watch=50 * MILLISECOND,
)

if __name__ == "__main__":
    code = run_child(Role.CUSTODIAN, lambda child: main(child, None, TIMES))
    sys.stderr.flush()
    os._exit(code)
