"""The supervisor with children without bodies: `plain_gateway.py FILE FOLDER [--tty]`, see plain_child.py.

It prints what its starter is told, a JSON list, and ends with the gateway's exit code.
"""

import json
import os
import sys
from pathlib import Path

from wghsm import supervisor
from wghsm.config import load
from wghsm.exits import ExitCode
from wghsm.ipc import Role

CHILD = Path(__file__).with_name("plain_child.py")


def main() -> int:
    """Run the gateway of the first argument, its children's notes in the folder of the second."""
    file, folder = sys.argv[1:3]

    def notify(code: ExitCode, text: str) -> None:
        print(json.dumps([code, text]), flush=True)

    tty = os.open("/dev/tty", os.O_RDWR) if "--tty" in sys.argv else None
    entries: dict[Role, tuple[str, ...]] = {
        role: (sys.executable, "-I", str(CHILD), role, folder) for role in Role if role is not Role.SUPERVISOR
    }
    return supervisor.run(load(file), file=file, entries=entries, notify=notify, tty=tty, keep_tty=False)


if __name__ == "__main__":
    sys.exit(main())
