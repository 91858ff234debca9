"""How the auditor begins: what only root may open, the drop, then `service`.

AuditSettings -> certificates read, folder made and given to the auditor's user       as root
-> drop -> Ready -> the log is opened, and whatever fails from here on is a fault that is told, never the end
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wghsm.audit import AuditLog, Limits
from wghsm.ipc import messages as m

from .journald import Journald
from .service import Service
from .writer import Writer

if TYPE_CHECKING:
    from wghsm.process import Child

    from .service import Sink

__all__ = ["main"]

_SECOND = 1_000_000
_OURS = (".jsonl", ".lock", ".torn")


def main(child: Child) -> None:
    """The auditor's whole life."""
    settings, _ = child.await_message(m.AuditSettings)
    folder = Path(settings.directory)
    trouble = _make_folder(folder, child.start.uid, child.start.gid)
    sinks: list[Sink] = []
    if settings.journald:
        sinks.append(Journald(settings.journald, child.start.gateway, required=settings.journald_required))
    if settings.syslog is not None:
        # Only where it is wanted: with it comes a TLS library.
        from .syslog import Syslog, tls_context

        sinks.append(Syslog(settings.syslog.server, settings.syslog.port, *tls_context(settings.syslog)))
    child.drop()
    limits = Limits(settings.rotate_size, settings.rotate_age * _SECOND, settings.retention * _SECOND)
    opened = partial(AuditLog, folder, child.start.gateway, "gateway", limits=limits)
    Service(child, settings, Writer(opened, trouble), sinks).run()


def _make_folder(folder: Path, uid: int, gid: int) -> str:
    """Make the folder for the auditor's user; why that did not work, empty if it did."""
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        # By its descriptor, and no link: whoever owned the folder before must not choose what is given away.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_uid == uid:
                return ""
            # A slip in the gateway file must not give away /etc.
            there = set(os.listdir(fd)) - {"lost+found"}  # noqa: PTH208  (by the descriptor)
            if strange := [name for name in there if not name.endswith(_OURS)]:
                return f"{folder} holds other things than logs, such as {min(strange)}; name a folder for the log alone"
            os.fchown(fd, uid, gid)
        finally:
            os.close(fd)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return ""
