"""The control process: started by the supervisor as `python -m wghsm.control --channel FD`."""

import socket
import sys

from wghsm.ipc import ChannelKind, ProtocolError, Role
from wghsm.ipc import messages as m
from wghsm.process import Child, run_child
from wghsm.process.audit import AuditSender

from ._server import Server
from ._service import Service
from ._supervisor import Requests


def main(child: Child) -> None:
    """Take the two listening sockets, drop root, serve."""
    settings, fds = child.await_message(m.ControlSettings)
    if len(fds) != 2:
        raise ProtocolError("ControlSettings comes with two listening sockets")
    child.drop()
    audit = AuditSender(lambda event: child.try_send(ChannelKind.CONTROL_AUDITOR, event), wanted=settings.audited)
    child.on_attach(ChannelKind.CONTROL_AUDITOR, lambda _incarnation: audit.attached())
    service = Service(Requests(child), settings.runtime_psks, audit, child.loop.call_later)
    child.on(child.home, m.Identity, lambda message, _fds: service.learn(message.public_key))
    Server(child.loop, socket.socket(fileno=fds[0]), service.feed_uapi)
    Server(child.loop, socket.socket(fileno=fds[1]), service.feed_admin)
    child.report(m.Ready())
    child.serve()


if __name__ == "__main__":
    sys.exit(run_child(Role.CONTROL, main))
