"""`wghsm run` whose sessions carry few messages, so that the limits by count are reached in seconds.

    few_messages.py KIND FILE                     the supervisor; KIND: "rekey" or "reject", the limit that is low
    few_messages.py KIND --as ROLE --channel FD   egress or ingress; started by this supervisor

For tests only: the gateway's own programs take no counts from outside.
"""

import sys
from pathlib import Path

from wghsm import config
from wghsm.ipc import Role
from wghsm.process import run_child
from wghsm.tunnel import Times
from wghsm.tunnel.egress import main as egress_main
from wghsm.tunnel.ingress import main as ingress_main

FEW = 30
"""Messages after which a session is renewed, or carries no more."""

TIMES = {"rekey": Times(rekey_after_messages=FEW), "reject": Times(reject_after_messages=FEW)}


def child(role: Role, times: Times) -> int:
    """Be one of the tunnel's programs."""
    main = egress_main if role is Role.EGRESS else ingress_main
    return run_child(role, lambda child: main(child, times))


def supervisor(kind: str, file: str) -> int:
    """Be `wghsm run FILE`."""
    from wghsm.supervisor import DEFAULT_ENTRIES, run

    own = {role: (sys.executable, "-I", __file__, kind, "--as", role) for role in (Role.EGRESS, Role.INGRESS)}
    return run(config.load(file), file=file, entries={**DEFAULT_ENTRIES, **own})


def program(kind: str) -> tuple[str, ...]:
    """For Gateway.program."""
    return sys.executable, str(Path(__file__)), kind


if __name__ == "__main__":
    name = sys.argv[1]
    if sys.argv[2] == "--as":
        role = Role(sys.argv[3])
        del sys.argv[1:4]
        sys.exit(child(role, TIMES[name]))
    sys.exit(supervisor(name, sys.argv[2]))
