"""Doing an examination in a process of its own: the vendor's module may crash, or never answer.

    parent: fork -> child: become the store's owner, load the module, examine; each thing found is one line of JSON
    parent: read the lines as they come, with a limit for each -> the child is ended, and its end explained

Used by `doctor`. Nothing that the child says is executed; a PIN goes into the child by the fork and never comes back.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Ended", "Tell", "examine_apart"]

Tell = Callable[[dict[str, Any]], None]
"""Hands one record to the parent."""


class Ended(Exception):  # noqa: N818
    """The child ended, or was ended, before it was done; `str()` is the verb that says how."""


def examine_apart(
    work: Callable[[Tell], None], owner: tuple[int, int] | None, patience: float
) -> Iterator[dict[str, Any]]:
    """Run `work` in a child with the uid and gid `owner` (None: as we are); yield its records as they come.

    A record that has `wait: true` lets the next one take any time. Raises Ended: no record for `patience` seconds, or
    an end before `work` was done.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(work, owner, writing)
    os.close(writing)
    status: int | None = None
    try:
        with contextlib.closing(os.fdopen(reading, "rb", buffering=0)) as pipe:
            done = False
            for record in _records(pipe.fileno(), patience):
                done = record.get("done") is True
                if not done:
                    yield record
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if not done:
                raise Ended(_end(status))
    finally:
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _records(pipe: int, patience: float) -> Iterator[dict[str, Any]]:
    unread = b""
    limit: float | None = patience
    while True:
        deadline = None if limit is None else time.monotonic() + limit
        while b"\n" not in unread:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([pipe], [], [], left)[0]:
                raise Ended(f"has not answered for {patience:.0f} s")
            piece = os.read(pipe, 65536)
            if not piece:
                return
            unread += piece
        line, _, unread = unread.partition(b"\n")
        record: dict[str, Any] = json.loads(line)
        limit = None if record.get("wait") is True else patience
        yield record


def _child(work: Callable[[Tell], None], owner: tuple[int, int] | None, writing: int) -> None:
    """Never returns: Python's exit handlers and the command's own belong to the parent."""
    status = 1

    def tell(record: dict[str, Any]) -> None:
        line = memoryview(json.dumps(record).encode() + b"\n")
        while line:
            line = line[os.write(writing, line) :]

    try:
        if owner is not None:
            os.setgroups([])
            os.setresgid(owner[1], owner[1], owner[1])
            os.setresuid(owner[0], owner[0], owner[0])
        work(tell)
        tell({"done": True})
        status = 0
    except KeyboardInterrupt:
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _end(status: int) -> str:
    if status >= 0:
        return f"ended its process (exit status {status})"
    return f"crashed ({signal.Signals(-status).name})"
