"""`wghsm run` with short protocol times, so that the gateway as initiator re-keys several times in a minute.

    short_times.py FILE                      the supervisor, as `wghsm run FILE` starts it
    short_times.py --as ROLE --channel FD    a child; started by this supervisor in place of the room's own program

For tests only: the gateway's own programs take no times from outside.
"""

import sys
from pathlib import Path

from wghsm import config
from wghsm.handshake import Times as HandshakeTimes
from wghsm.handshake.shell import main as handshake_main
from wghsm.ipc import Role
from wghsm.process import Child, run_child
from wghsm.tunnel import Times as TunnelTimes
from wghsm.tunnel.egress import main as egress_main
from wghsm.tunnel.ingress import main as ingress_main

SECOND = 1_000_000_000

REKEY_AFTER = 8
"""Seconds after which the initiator of a session makes a new one."""

REJECT_AFTER = 24

TUNNEL = TunnelTimes(
    rekey_after_time=REKEY_AFTER * SECOND,
    rekey_after_time_recv=16 * SECOND,
    reject_after_time=REJECT_AFTER * SECOND,
    zero_key_material=3 * REJECT_AFTER * SECOND,
)
HANDSHAKE = HandshakeTimes(
    reject_after_time=REJECT_AFTER * SECOND,
    zero_key_material=3 * REJECT_AFTER * SECOND,
)
SHORTENED = (Role.HANDSHAKE, Role.EGRESS, Role.INGRESS)


def child(role: Role) -> int:
    """Be one of the shortened children."""

    def main(child: Child) -> None:
        if role is Role.HANDSHAKE:
            handshake_main(child, HANDSHAKE)
        else:
            (egress_main if role is Role.EGRESS else ingress_main)(child, TUNNEL)

    return run_child(role, main)


def supervisor(file: str) -> int:
    """Be `wghsm run FILE`."""
    from wghsm.supervisor import DEFAULT_ENTRIES, run

    own = {role: (sys.executable, "-I", str(Path(__file__)), "--as", role) for role in SHORTENED}
    return run(config.load(file), file=file, entries={**DEFAULT_ENTRIES, **own})


if __name__ == "__main__":
    if sys.argv[1] == "--as":
        name = sys.argv[2]
        del sys.argv[1:3]
        sys.exit(child(Role(name)))
    sys.exit(supervisor(sys.argv[1]))
