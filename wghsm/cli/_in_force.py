"""After a change of a gateway file: bring it into force where the gateway runs, and say how that went."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wghsm.cli._admin import NotRunningError, exchange
from wghsm.cli._output import CommandError
from wghsm.cli.reload import exit_code_of
from wghsm.cli.shapes import peers
from wghsm.exits import ExitCode
from wghsm.ipc.admin import AdminRequest

__all__ = ["InForce", "bring_into_force"]

_PATIENCE = 600.0


@dataclass(frozen=True)
class InForce:
    """How it went; `text` is one line for people."""

    state: Literal["in-force", "not-running", "not-asked", "refused"]
    text: str
    exit_code: ExitCode = ExitCode.OK

    def shape(self) -> peers.InForce:
        """For --json."""
        return peers.InForce(state=self.state, text=self.text)


def bring_into_force(file: Path, gateway: str, *, wanted: bool = True) -> InForce:
    """Have the running gateway of this name read `file` again, which is changed whatever the gateway says."""
    if not wanted:
        return InForce("not-asked", f"not in force yet; bring it into force with: wghsm reload {gateway}")
    path = os.path.abspath(file)  # noqa: PTH100  (links are the gateway's to follow)
    try:
        reply = exchange(gateway, AdminRequest(verb="reload", file=path), _PATIENCE)
    except NotRunningError:
        return InForce("not-running", f"gateway {gateway} is not running; it will be in force when it starts")
    except CommandError as error:
        return InForce("refused", f"written to the file, and NOT in force: {error}", error.exit_code)
    if reply.errno == 0:
        return InForce("in-force", f"gateway {gateway}: {reply.text}")
    if reply.errno == errno.ENOENT:
        return InForce("not-running", f"{reply.text}; {file} is changed all the same")
    return InForce("refused", f"written to the file, and NOT in force: {reply.text}", exit_code_of(reply.errno))
