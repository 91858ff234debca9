"""Where the PIN comes from, in two steps: what only root may open is opened before privileges are dropped.

    source = open_pin(uri.pin_source)      as root: opens the file, the credential or the terminal, runs the command
    ... drop privileges ...
    pin = source.read_for_login()          the PIN as a bytearray, which the caller wipes; None: the token asks for it

Sources: `file:/path` (mode 0600 or stricter), `credential:NAME` (systemd's $CREDENTIALS_DIRECTORY),
`command:/path/of/program` (see `_pin_command`), `prompt`, and `protected` or none at all: the token has a way of
its own to be told, such as a pinpad. A PIN never becomes a str, appears in no message, and is never asked for twice.
"""

import os
import stat
import termios
from pathlib import Path
from types import TracebackType
from typing import Self

from wghsm.pkcs11_backend.errors import PinUnavailable
from wghsm.wipe import wipe

__all__ = ["PinSource", "open_pin"]

_LIMIT = 256
_EXPECTED = "it must give one line, the PIN, and nothing else"
_REMEDY = "write pin-source=file:/path, credential:NAME, command:/path/of/program, prompt or protected (a pinpad)"


class PinSource:
    """An opened PIN source, which a process may carry over its change of uid. Read it once.

    It is a descriptor, or what a command has written, or (with neither) the token's own way.
    """

    def __init__(
        self, name: str, descriptor: int = -1, *, terminal: bool = False, had: bytearray | None = None
    ) -> None:
        self.name = name
        self.pinpad = descriptor < 0 and had is None
        """Whether the token itself asks for the PIN (its protected authentication path)."""
        self._descriptor = descriptor
        self._terminal = terminal
        self._had = had

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def typed(self) -> bool:
        """Whether a person types it: such a PIN cannot be had again by itself after a restart."""
        return self._terminal or self.pinpad

    def fileno(self) -> int:
        """Return the open descriptor, -1 without one."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor, forget what a command wrote; idempotent."""
        wipe(self._had)
        self._had = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read_for_login(self, prompt: str = "PIN: ") -> bytearray | None:
        """Read the PIN as `read` does, or return None where the token asks for it itself. Raises PinUnavailable."""
        return None if self.pinpad else self.read(prompt)

    def read(self, prompt: str = "PIN: ") -> bytearray:
        """Read the PIN (1 to 255 bytes of UTF-8, one trailing newline stripped) and close the source.

        At a terminal the echo is off while it is typed and restored afterwards, also after Ctrl-C. Raises
        PinUnavailable, also where there is nothing to read but the token's own way.
        """
        if self.pinpad:
            raise PinUnavailable(f"token URI: {self.name} gives no PIN to set; {_REMEDY}")
        buffer = bytearray(_LIMIT + 2)
        try:
            if self._had is not None:
                length = len(self._had)
                memoryview(buffer)[:length] = self._had
            else:
                length = self._ask(buffer, prompt) if self._terminal else self._read_all(buffer)
            if length and buffer[length - 1] == 0x0A:
                length -= 1
            self._check(buffer, length)
            return bytearray(memoryview(buffer)[:length])
        except OSError as fault:
            raise PinUnavailable(f"PIN from {self.name}: it cannot be read: {fault.strerror}; correct it") from None
        finally:
            wipe(buffer)
            self.close()

    def _read_all(self, buffer: bytearray) -> int:
        length = 0
        view = memoryview(buffer)
        while length < len(buffer):
            got = os.readv(self._descriptor, [view[length:]])
            if got == 0:
                break
            length += got
        return length

    def _ask(self, buffer: bytearray, prompt: str) -> int:
        before = termios.tcgetattr(self._descriptor)
        silent = [*before]
        silent[3] = before[3] & ~termios.ECHO
        try:
            termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, silent)
            os.write(self._descriptor, prompt.encode())
            return os.readv(self._descriptor, [buffer])
        finally:
            termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, before)
            os.write(self._descriptor, b"\n")

    def _check(self, buffer: bytearray, length: int) -> None:
        if length == 0:
            raise PinUnavailable(f"PIN from {self.name}: it is empty; {_EXPECTED}")
        if length > _LIMIT - 1:
            raise PinUnavailable(f"PIN from {self.name}: it is longer than {_LIMIT - 1} bytes; {_EXPECTED}")
        if any(octet < 0x20 or octet == 0x7F for octet in memoryview(buffer)[:length]):
            raise PinUnavailable(f"PIN from {self.name}: it holds a line break or a control character; {_EXPECTED}")


def open_pin(source: str | None, terminal: int | None = None) -> PinSource:
    """Open the PIN source that a URI names; `terminal` is a tty descriptor to use for `prompt` (duplicated).

    Without `terminal`, `prompt` opens /dev/tty. A command is run here, to its end. Raises PinUnavailable: an unknown
    source, a missing file, one that group or others can read, no terminal, a command that fails.
    """
    kind, _, rest = (source or "").partition(":")
    if kind == "file" and rest:
        return _open_file(rest)
    if kind == "credential" and rest:
        return _open_credential(rest)
    if kind == "command" and rest:
        return _run(rest)
    if source == "prompt":
        return _open_terminal(terminal)
    if source is None or source == "protected":
        return PinSource("no pin-source" if source is None else "pin-source=protected")
    raise PinUnavailable(f"token URI: pin-source {kind!r} is not known; {_REMEDY}")


def _open_file(rest: str) -> PinSource:
    # file:///path and file://localhost/path are the long forms of file:/path (RFC 8089).
    path = rest.removeprefix("//localhost") if rest.startswith("//localhost/") else rest
    if path.startswith("///"):
        path = path[2:]
    if not path.startswith("/") or path.startswith("//"):
        raise PinUnavailable("token URI: pin-source=file: needs an absolute path, as in file:/etc/wghsm/pin")
    name = f"file {path}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except PermissionError as fault:
        raise PinUnavailable(f"PIN {name}: {fault.strerror}; run this as root, or correct pin-source") from None
    except OSError as fault:
        raise PinUnavailable(f"PIN {name}: {fault.strerror}; correct pin-source or make the file (mode 0600)") from None
    about = os.fstat(descriptor)
    complaint = _complaint(path, about)
    if complaint is not None:
        os.close(descriptor)
        raise PinUnavailable(f"PIN {name}: {complaint}")
    return PinSource(name, descriptor)


def _complaint(path: str, about: os.stat_result) -> str | None:
    if not stat.S_ISREG(about.st_mode):
        return "not a regular file; correct pin-source"
    if about.st_mode & 0o077:
        return f"others can read it (mode {stat.S_IMODE(about.st_mode):04o}); chmod 600 {path}"
    if about.st_uid not in (0, os.geteuid()):
        return f"it belongs to uid {about.st_uid}, which could change it; chown root {path}"
    return None


def _run(command: str) -> PinSource:
    # Imported here: a process that has dropped root never comes to it.
    from wghsm.pkcs11_backend._pin_command import run_pin_command

    return PinSource(f"command {command.partition(' ')[0]}", had=run_pin_command(command, _LIMIT + 2))


def _open_credential(name: str) -> PinSource:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        raise PinUnavailable(
            f"PIN credential {name!r}: systemd gave no $CREDENTIALS_DIRECTORY; "
            f"add LoadCredential={name}:/path to the unit"
        )
    if "/" in name or name in (".", ".."):
        raise PinUnavailable(f"PIN credential {name!r}: a credential's name has no slash")
    try:
        descriptor = os.open(Path(folder) / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as fault:
        raise PinUnavailable(f"PIN credential {name!r}: {fault.strerror}; add LoadCredential={name}:/path") from None
    return PinSource(f"credential {name!r}", descriptor)


def _open_terminal(terminal: int | None) -> PinSource:
    try:
        if terminal is None:
            descriptor = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
        else:
            descriptor = os.dup(terminal)
    except OSError as fault:
        raise PinUnavailable(f"PIN prompt: no terminal ({fault.strerror}); use pin-source=file:/path") from None
    if not os.isatty(descriptor):
        os.close(descriptor)
        raise PinUnavailable("PIN prompt: the descriptor is no terminal; use pin-source=file:/path")
    return PinSource("prompt", descriptor, terminal=True)
