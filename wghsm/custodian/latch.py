"""The latch against a PIN that the token has refused: `<state_directory>/custodian/pin-refused`.

Tokens lock at the third wrong PIN, and a gateway that is restarted would try three times within a minute. So each
refused PIN leaves a fingerprint in this file, and a PIN with such a fingerprint is not sent again. Another PIN is
tried; once the token takes one the file goes. The operator may delete it (after unlocking the token, say).

The fingerprint is 16 bits of scrypt over a random salt, the token's name and the PIN. 16 bits are enough to notice
that the PIN was changed (it is missed once in 65,536 times, and then the file has to be deleted by hand), but they
are useless to guess it: thousands of PINs of eight digits share each value, each guess costs 16 MiB and tens of
milliseconds, and what is found is only a PIN that the token does not take.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LatchFault", "PinLatch"]

_HEADER = "wghsm-pin-refused 1"
_SALT_LEN = 16
_FINGERPRINT_LEN = 2
_KEPT = 16


class LatchFault(Exception):  # noqa: N818
    """The latch cannot be read or written; `str()` is one line for the operator."""


class PinLatch:
    """The latch in `folder` for one token, named by `token`. Call `is_refused` first, then `close` or `open`.

    A gateway with several tokens gives each a file of its own (`shared`), named by a short hash of the token's name.
    """

    def __init__(self, folder: Path, token: str, *, shared: bool = False) -> None:
        mark = f"-{hashlib.blake2s(token.encode(), digest_size=4).hexdigest()}" if shared else ""
        self.path = folder / f"pin-refused{mark}"
        self._token = token.encode()
        self._salt = b""
        self._refused: list[bytes] = []
        self._fingerprint = b""

    def is_refused(self, pin: bytearray) -> bool:
        """Whether the token has refused `pin` before, so that it must not be sent. Raises LatchFault."""
        self._read()
        # Made before the login, so that after a refusal nothing slow stands between it and the file.
        self._fingerprint = hashlib.scrypt(
            pin, salt=self._salt + self._token, n=2**14, r=8, p=1, dklen=_FINGERPRINT_LEN
        )
        return any(hmac.compare_digest(self._fingerprint, refused) for refused in self._refused)

    def close(self) -> None:
        """The token refused the PIN: never again. Raises LatchFault."""
        refused = [*self._refused, self._fingerprint][-_KEPT:]
        text = "\n".join([_HEADER, self._salt.hex(), *(known.hex() for known in refused)]) + "\n"
        unfinished = self.path.with_suffix(".new")
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, text.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            unfinished.rename(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            raise LatchFault(f"PIN latch {self.path} cannot be written: {error.strerror}") from None

    def open(self) -> None:
        """The token took the PIN: what it refused before is no concern any more. Raises LatchFault."""
        self._refused.clear()
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise LatchFault(f"PIN latch {self.path} cannot be removed: {error.strerror}") from None

    def _read(self) -> None:
        try:
            # Not read_text: a codec other than UTF-8 would be imported here, after the drop.
            text = self.path.read_bytes().decode()
        except FileNotFoundError:
            self._salt = os.urandom(_SALT_LEN)
            return
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged() from error
        header, *values = text.splitlines() or [""]
        try:
            self._salt, *self._refused = (bytes.fromhex(value) for value in values)
        except ValueError:
            raise self._damaged() from None
        sizes = {len(refused) for refused in self._refused}
        if header != _HEADER or len(self._salt) != _SALT_LEN or sizes != {_FINGERPRINT_LEN}:
            raise self._damaged()

    def _damaged(self) -> LatchFault:
        return LatchFault(
            f"PIN latch {self.path} cannot be read, so a PIN may have been refused; check the PIN, then delete the file"
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
