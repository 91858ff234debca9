"""The handshake program: `python -I -m wghsm.handshake --channel FD`, started by the supervisor."""

import sys

from wghsm.handshake.shell import main
from wghsm.ipc import Role
from wghsm.process import run_child

if __name__ == "__main__":
    sys.exit(run_child(Role.HANDSHAKE, main))
