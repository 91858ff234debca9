"""`wghsm run FILE` with short pauses for its token; all else is as it is, the patience with slow calls too.

short_gateway.py FILE                     the supervisor
short_gateway.py --custodian --channel FD the custodian that it starts
"""

import sys

from wghsm import config
from wghsm.custodian import TokenTimes
from wghsm.custodian import main as custodian_main
from wghsm.ipc import Role
from wghsm.process import run_child
from wghsm.supervisor import DEFAULT_ENTRIES, run

MILLISECOND = 1_000_000
TIMES = TokenTimes(
    first_pause=200 * MILLISECOND,
    longest_pause=400 * MILLISECOND,
    settle=1 * MILLISECOND,
    look_back=300 * MILLISECOND,
)

if __name__ == "__main__":
    if sys.argv[1] == "--custodian":
        del sys.argv[1]
        sys.exit(run_child(Role.CUSTODIAN, lambda child: custodian_main(child, None, TIMES)))
    entries = {**DEFAULT_ENTRIES, Role.CUSTODIAN: (sys.executable, "-I", __file__, "--custodian")}
    sys.exit(run(config.load(sys.argv[1]), file=sys.argv[1], entries=entries))
