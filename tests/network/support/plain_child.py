"""A child without a body, for tests of the supervisor: `plain_child.py ROLE FOLDER --channel FD`.

It drops like a real one, answers what must be answered, and writes what happens to FOLDER/ROLE.events, a JSON list a
line: [pid, event, details...]. FOLDER/ROLE.orders may hold a JSON object that it obeys at its start:

    fault: [exit code, text]   end like that            mute: never say Ready
    stubborn: do not end when told                      chatter: send what the table does not allow
    lacks: a key; a custodian that is to use it ends with PIN_REFUSED
"""

import json
import os
import sys
import time
from pathlib import Path

import msgspec

from wghsm.exits import ExitCode
from wghsm.ipc import ChannelKind, Role
from wghsm.ipc import messages as m
from wghsm.ipc.roles import ENDS
from wghsm.ipc.table import accepted
from wghsm.process import Child, ChildFault, run_child

ROLE = Role(sys.argv[1])
FOLDER = Path(sys.argv[2])
del sys.argv[1:3]

_LOCKED = (Role.CUSTODIAN, Role.EGRESS, Role.INGRESS)


class Body:
    """What it does."""

    def __init__(self, child: Child) -> None:
        self.child = child
        # Opened as root: the dropped process writes on.
        self.events = (FOLDER / f"{ROLE}.events").open("a", buffering=1)
        orders = FOLDER / f"{ROLE}.orders"
        self.orders = json.loads(orders.read_text()) if orders.exists() else {}

    def tell(self, event: str, *details: object) -> None:
        """Write an event."""
        self.events.write(json.dumps([os.getpid(), event, *details]) + "\n")

    def run(self) -> None:
        """Live."""
        child = self.child
        self.tell("start", child.start.incarnation)
        if ROLE is Role.CUSTODIAN:
            settings, fds = child.await_message(m.TokenSettings)
            self.tell("token", settings.prompt, [os.isatty(fd) for fd in fds])
            if settings.key == self.orders.get("lacks"):
                raise ChildFault(ExitCode.PIN_REFUSED, "the one reason")
        if ROLE is Role.CONTROL:
            self.tell("control", len(child.await_message(m.ControlSettings)[1]))
        for kind in ChannelKind:
            if ROLE in ENDS[kind]:
                self.watch(kind)
        child.drop(keep_memory_lock=ROLE in _LOCKED)
        if "fault" in self.orders:
            code, text = self.orders["fault"]
            raise ChildFault(ExitCode(code), text)
        if self.orders.get("chatter"):
            child.report(m.StopRequest(1))
        if not self.orders.get("mute"):
            child.report(m.Ready())
        child.serve()
        while self.orders.get("stubborn"):
            time.sleep(3600)

    def watch(self, kind: ChannelKind) -> None:
        """Note everything on channels of this kind, and answer the supervisor."""
        child = self.child
        if kind is child.home:
            for each in accepted(kind, ROLE):
                if each not in (m.Hello, m.Start, m.Attach, m.StatsTable, m.Ping, m.Shutdown):
                    child.on(kind, each, self.take)
            return
        child.on_attach(kind, lambda incarnation: self.tell("attach", kind, incarnation))
        child.on_detach(kind, lambda: self.tell("detach", kind))

    def take(self, message: m.Message, fds: list[int]) -> None:
        """Note a message of the supervisor."""
        for fd in fds:
            os.close(fd)
        self.tell("message", type(message).__name__, msgspec.to_builtins(message))
        match message:
            case m.CustodianPeers() | m.HandshakePeers() | m.TunnelPeers() | m.RoutesCommit() | m.UdpSockets():
                self.child.report(m.Applied(message.change))
            case m.Routes(last=True):
                self.child.report(m.Prepared(message.change))
            case _:
                pass


if __name__ == "__main__":
    sys.exit(run_child(ROLE, lambda child: Body(child).run()))
