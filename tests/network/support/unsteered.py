"""`wghsm run FILE` on a kernel that has no bpf() for us: packets come to any worker's queue of the TUN."""

import platform
import sys

from wghsm import config
from wghsm.supervisor import DEFAULT_ENTRIES, run

if __name__ == "__main__":
    platform.machine = lambda: "pdp11"
    sys.exit(run(config.load(sys.argv[1]), file=sys.argv[1], entries=DEFAULT_ENTRIES))
