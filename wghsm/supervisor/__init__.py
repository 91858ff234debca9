"""The supervisor: root, parent of all the other processes of a gateway, holder of no secret.

    _run          start and end: lock, TUN, sockets, link, privileges, children
    _supervisor   what each event leads to        _children    spawn, pair, watch, restart: _child
    _requests     the control process's wishes     _endpoints   names to addresses
    _applying     one change after the other       _reload      the file again: _reading, _relink
    _expiry       peers whose time has come        _audit      what the auditor is told of it all
    model, merge, changes, restart   the pure parts: settings, a changed file, the order of a change, what a death means

It opens TUN, UDP and control sockets, sets links, addresses and routes, and gives every process its settings; it
never sees a key or the PIN. It keeps uid 0 and a few capabilities (`_run.KEPT`): it is root in practice.
Called by the `wghsm` command.
"""

from ._fault import GatewayFault
from ._run import DEFAULT_ENTRIES, run
from ._runtime import running_pid, runtime_directory, uapi_socket_path
from ._startup import wants_pinpad, wants_prompt

__all__ = [
    "DEFAULT_ENTRIES",
    "GatewayFault",
    "run",
    "running_pid",
    "runtime_directory",
    "uapi_socket_path",
    "wants_pinpad",
    "wants_prompt",
]
