"""The file of a wrapped PSK beside the gateway file: ciphertext only, a line for each epoch.

    # comment
    v1 3 BASE64         version, epoch (u32), initial vector + ciphertext + tag (60 bytes)
    v1 2 BASE64         the one before it, for as long as the peer may need it

Read by the supervisor and the commands; written by `wghsm psk wrap`. Only the token can open what stands here.
"""

import base64
import binascii
from pathlib import Path

from wghsm.config._errors import ConfigError, Problem
from wghsm.config._model import Gateway
from wghsm.config._psk import PskWrapped

__all__ = ["WrappedPsk", "format_wrapped", "line_of_epoch", "read_wrapped", "read_wrapped_files"]

WrappedPsk = tuple[int, bytes]
"""An epoch and the 60 bytes that were sealed for it."""

_SEALED_LENGTH = 60
_MAX_BYTES = 65536
_REMEDY = "wrap the pre-shared key again: wghsm psk wrap PEER -c GATEWAY.yaml"


def read_wrapped(path: Path) -> list[WrappedPsk]:
    """The PSKs in the file, the newest first. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1).decode("ascii")
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, f"cannot be read ({error.strerror})", _REMEDY)]) from None
    except UnicodeDecodeError:
        text = "\0"
    found: dict[int, bytes] = {}
    faults: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        entry = _parse(line)
        if entry is None:
            faults.append(Problem(str(path), number, "this is no wrapped pre-shared key", _REMEDY))
        elif entry[0] in found:
            faults.append(Problem(str(path), number, f"epoch {entry[0]} stands twice", "keep the newer line"))
        else:
            found[entry[0]] = entry[1]
    if not found and not faults:
        faults.append(Problem(str(path), 0, "the file holds no wrapped pre-shared key", _REMEDY))
    if faults:
        raise ConfigError(faults)
    return sorted(found.items(), reverse=True)


def line_of_epoch(path: Path, epoch: int) -> int:
    """The number of the line that holds this epoch in a file that was read; 0 if it is not there any more."""
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    found = ((number, _parse(line)) for number, line in enumerate(lines, 1))
    return next((number for number, entry in found if entry is not None and entry[0] == epoch), 0)


def _parse(line: str) -> WrappedPsk | None:
    words = line.split()
    if len(words) != 3 or words[0] != "v1" or not words[1].isdigit() or len(words[1]) > 10:
        return None
    try:
        sealed = base64.b64decode(words[2], validate=True)
    except binascii.Error:
        return None
    epoch = int(words[1])
    return (epoch, sealed) if len(sealed) == _SEALED_LENGTH and epoch < 2**32 else None


def format_wrapped(entries: list[WrappedPsk], peer: str) -> str:
    """The text of a file that holds `entries`."""
    lines = [f"v1 {epoch} {base64.b64encode(sealed).decode()}\n" for epoch, sealed in sorted(entries, reverse=True)]
    return f"# pre-shared key of {peer}, wrapped by wghsm: only the gateway's token can open it\n" + "".join(lines)


def read_wrapped_files(gateway: Gateway) -> dict[Path, list[WrappedPsk]]:
    """The wrapped PSKs of every peer that has one, by file. Raises ConfigError with the faults of all of them."""
    found: dict[Path, list[WrappedPsk]] = {}
    problems: list[Problem] = []
    for peer in gateway.peers:
        if isinstance(peer.preshared_key, PskWrapped):
            try:
                found[peer.preshared_key.file] = read_wrapped(peer.preshared_key.file)
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found
