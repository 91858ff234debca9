"""Files that the psk commands write: the gateway file's epochs, wrapped PSKs, the record of exports.

replaced_psk    gateway file text -> the same text with one peer's preshared_key changed, all else kept
new_file        mode 0600, and never in the place of another
replace_file    whole or not at all: a new file in the same folder, then rename
locked          one command at a time on a file or folder
Exports         psk-exports.jsonl: a line for each PSK that was handed out, without the PSK
"""

import contextlib
import fcntl
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from wghsm.cli._output import CommandError, named

__all__ = [
    "EXPORTS_WITHOUT_GATEWAY",
    "REPLACED",
    "Exports",
    "current",
    "locked",
    "new_file",
    "refuse_old_file",
    "replace_file",
    "replaced_psk",
]

_NAME = "psk-exports.jsonl"
EXPORTS_WITHOUT_GATEWAY = Path("/var/lib/wghsm") / _NAME
"""Where an export is recorded that names a token and no gateway file."""


def replaced_psk(text: str, position: int, value: str) -> str:
    """The gateway file's text with the preshared_key of the peer at `position` set to the plain word `value`.

    Only the value's own characters change: comments, quotes and order stay. The text must have been loaded before.
    """
    root = YAML(typ="rt").compose(text)
    peers = _entry(root, "peers")
    node = _entry(peers.value[position], "preshared_key")
    return text[: node.start_mark.index] + value + text[node.end_mark.index :]


def _entry(mapping: Any, key: str) -> Any:
    return next(value for name, value in mapping.value if name.value == key)


@contextlib.contextmanager
def locked(path: Path, waiting: str | None = None) -> Iterator[None]:
    """Hold the lock of the file or folder at `path`, also if it is replaced meanwhile. Raises OSError.

    Where another has it, `waiting` is said first.
    """
    while True:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _lock(descriptor, waiting)
            held, there = os.fstat(descriptor), path.stat()
            if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):
                yield
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, waiting: str | None) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is not None:
            click.echo(waiting, err=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def replace_file(path: Path, text: str) -> None:
    """Put `text` in the place of the file at `path`, with its owner and mode (0600 for a new one). Raises OSError."""
    path = path.resolve()
    try:
        before: os.stat_result | None = path.stat()
    except FileNotFoundError:
        before = None
    with named(path):
        _replace(path, text, before)


def _replace(path: Path, text: str, before: os.stat_result | None) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if before is not None:
                os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.write(text.encode())
            file.flush()
            os.fsync(descriptor)
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


REPLACED = "replaced"
"""The `kind` of a record that says: this PSK object was replaced."""


def current(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The exports in one record, but those of PSK objects that were replaced since."""
    last = {record.get("object"): place for place, record in enumerate(records) if record.get("kind") == REPLACED}
    return [
        record
        for place, record in enumerate(records)
        if record.get("kind") != REPLACED and place > last.get(record.get("object"), -1)
    ]


def refuse_old_file(path: Path) -> None:
    """Say at once what `new_file` would say later of a file that is there, or of a folder that is not.

    For whoever records first that something is in the file. Raises CommandError and OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        path.lstat()
        raise _exists(path)
    path.parent.stat()


def _exists(path: Path) -> CommandError:
    return CommandError(f"{path} exists; nothing was written: choose another file or remove it")


def new_file(path: Path, data: bytes | bytearray) -> None:
    """Write a file of mode 0600 that is not there yet, whole or not at all. Raises CommandError and OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise _exists(path) from None
    try:
        with named(path), os.fdopen(descriptor, "wb", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


class Exports:
    """A record of exports: in a gateway's state folder, or in `EXPORTS_WITHOUT_GATEWAY` where no file was named."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, state_directory: Path) -> "Exports":
        """The record of the gateway with that state folder."""
        return cls(state_directory / _NAME)

    def append(self, record: dict[str, object]) -> None:
        """Have `record` on disk, with the time and who asks. Raises CommandError: then nothing may be handed out."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"time": when, "uid": os.getuid(), **record}) + "\n"
        try:
            self.path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self.path, flags, 0o600)
            try:
                os.write(descriptor, line.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise CommandError(
                f"{self.path}: {error.strerror}; an export is recorded there first, so nothing was handed out; "
                "run this as root, or name another file with --record"
            ) from None

    def forget(self, label: str) -> None:
        """Record that the PSK object `label` is another one now, if it was ever handed out. Raises as append, all."""
        if any(record.get("object") == label for record in self.all()):
            self.append({"kind": REPLACED, "object": label})

    def all(self) -> list[dict[str, Any]]:
        """Every record, in order; empty where there is no file. Raises OSError."""
        found: list[dict[str, Any]] = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self.path.open() as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found
