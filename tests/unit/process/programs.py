"""Small programs that the tests of this room start: `python programs.py NAME ARGUMENTS`.

They run as root at first, so each is its own process.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from wghsm.exits import ExitCode
from wghsm.ipc import ChannelKind, PeerField, Role
from wghsm.ipc import messages as m
from wghsm.process import Child, ChildFault, run_child
from wghsm.process.privileges import Capability, drop, reduce

_PR_GET_PDEATHSIG = 2
_PR_GET_DUMPABLE = 3


def state() -> dict[str, object]:
    """Say what the kernel knows of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    libc = ctypes.CDLL(None)
    death = ctypes.c_int()
    libc.prctl(_PR_GET_PDEATHSIG, ctypes.byref(death))
    return {
        "uid": lines["Uid"].split(),
        "gid": lines["Gid"].split(),
        "groups": lines["Groups"].split(),
        "permitted": int(lines["CapPrm"], 16),
        "effective": int(lines["CapEff"], 16),
        "inheritable": int(lines["CapInh"], 16),
        "bounding": int(lines["CapBnd"], 16),
        "ambient": int(lines["CapAmb"], 16),
        "no_new_privs": int(lines["NoNewPrivs"]),
        "locked": int(lines["VmLck"].split()[0]),
        "dumpable": libc.prctl(_PR_GET_DUMPABLE),
        "death": death.value,
        "core": resource.getrlimit(resource.RLIMIT_CORE),
    }


def dropped(lock: str) -> None:
    """Drop, touch memory, start threads, and say what is left."""
    drop(61199, 61198, os.getppid(), keep_memory_lock=lock == "lock")
    room = bytearray(8 * 1024 * 1024)
    room[::4096] = b"x" * len(room[::4096])
    threads = [threading.Thread(target=time.sleep, args=(0.01,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(state()))


def reduced() -> None:
    """Reduce, and say what is left here and in a program started from here."""
    reduce([Capability.KILL, Capability.SETPCAP])
    print(json.dumps(state()), flush=True)
    os.execv(sys.executable, [sys.executable, __file__, "say"])  # noqa: S606


def say() -> None:
    """Say what this process is."""
    print(json.dumps(state()))


def orphan() -> None:
    """Drop for a parent that is another one."""
    try:
        drop(61199, 61199, 1)
    except ProcessLookupError:
        print("refused")


def child(behaviour: str) -> None:
    """Live as a child does; `behaviour` says how."""
    sys.exit(run_child(Role.INGRESS, lambda made: _behave(made, behaviour)))


def _behave(made: Child, behaviour: str) -> None:
    match behaviour:
        case "fault":
            raise ChildFault(ExitCode.PIN_REFUSED, "the PIN was refused")
        case "bug":
            secret = b"hunter2"
            raise ValueError(secret)
        case "early":
            message, _ = made.await_message(m.TunDevice)
            made.report(m.Applied(message.mtu))
        case _:
            pass
    made.on(made.home, m.RoutesCommit, lambda message, _fds: made.report(m.Applied(message.change)))
    made.on(
        made.home, m.LinkState, lambda _message, _fds: made.report(m.Applied(made.stats.get(3, PeerField.RX_BYTES)))
    )
    made.on(made.home, m.TunnelPeers, lambda _message, _fds: made.catch_up(ChannelKind.HANDSHAKE_INGRESS))
    # The other end of a pair that came by Attach: what it says is told on, as is its coming and going.
    pair = ChannelKind.HANDSHAKE_INGRESS
    made.on(pair, m.ForgetSessions, lambda message, _fds: made.report(m.Applied(message.peer)))
    made.on_attach(pair, lambda incarnation: made.report(m.Prepared(incarnation)))
    made.on_detach(pair, lambda: made.report(m.Prepared(0)))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    made.drop(behind=behaviour == "behind")
    made.report(m.Ready())
    made.serve()


if __name__ == "__main__":
    PROGRAMS: dict[str, Callable[..., None]] = {
        "child": child,
        "dropped": dropped,
        "orphan": orphan,
        "reduced": reduced,
        "say": say,
    }
    name, arguments = sys.argv[1], sys.argv[2:]
    if name == "child":
        # run_child reads its own arguments.
        del sys.argv[1:3]
        arguments = arguments[:1]
    PROGRAMS[name](*arguments)
