"""What can go wrong with a token: one line for the operator, an exit status, and whether trying again can help.

Messages name what was looked for, what is there and what to do; they never hold a PIN, a key or a PSK.
`final` means that neither a retry nor a restart helps without an operator's change.
"""

# The names say what is wrong; the suffix would only repeat the base class.
# ruff: noqa: N818

from typing import ClassVar

from wghsm.exits import ExitCode
from wghsm.pkcs11_backend._ckr import ckr_name, ladder_level

__all__ = [
    "AmbiguousKey",
    "AmbiguousToken",
    "CurveUnsupported",
    "KeyNotFound",
    "KeyUnfit",
    "LabelTaken",
    "ModuleMissing",
    "PinFinalTry",
    "PinLocked",
    "PinRefused",
    "PinUnavailable",
    "PointRefused",
    "TokenError",
    "TokenFault",
    "TokenNotFound",
    "UriError",
]


class TokenError(Exception):
    """Base of every error of this room; `str()` is one line without secrets."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILURE
    final: ClassVar[bool] = True


class UriError(TokenError, ValueError):
    """A pkcs11: URI that cannot be used as written."""

    exit_code = ExitCode.BAD_CONFIG


class PinUnavailable(TokenError):
    """The PIN's source cannot be read, or is readable by too many."""

    exit_code = ExitCode.BAD_CONFIG


class PinRefused(TokenError):
    """The token refused the PIN. It must not be sent again: cards lock at the third wrong one."""

    exit_code = ExitCode.PIN_REFUSED


class PinLocked(PinRefused):
    """The token's PIN is locked, expired or not set; no login is possible."""


class PinFinalTry(PinLocked):
    """One more wrong PIN would lock the token; none was sent."""


class ModuleMissing(TokenError):
    """The PKCS#11 module cannot be loaded."""

    exit_code = ExitCode.TOKEN_UNUSABLE


class TokenNotFound(TokenError):
    """No token matches the URI."""

    exit_code = ExitCode.TOKEN_UNUSABLE


class AmbiguousToken(TokenError):
    """More than one token matches the URI."""

    exit_code = ExitCode.TOKEN_UNUSABLE


class KeyNotFound(TokenError):
    """No object of the wanted kind has the label."""

    exit_code = ExitCode.TOKEN_UNUSABLE


class AmbiguousKey(TokenError):
    """More than one object of the wanted kind has the label."""

    exit_code = ExitCode.TOKEN_UNUSABLE


class CurveUnsupported(TokenError):
    """The token (or the key) does not do X25519 in a way that wghsm knows."""

    exit_code = ExitCode.TOKEN_UNUSABLE


class KeyUnfit(TokenError):
    """The object is there but may not, or cannot, do its work."""

    exit_code = ExitCode.TOKEN_UNUSABLE


class LabelTaken(TokenError):
    """An object with the label exists already; nothing was changed."""


class PointRefused(TokenError):
    """A public key of low order, or one whose shared secret is all zeros: a peer's fault, never the token's."""

    final = False


class TokenFault(TokenError):
    """A call into the module failed: `ckr` is its return value, `level` the recovery step that may help (0: none)."""

    final = False

    def __init__(self, ckr: int, doing: str, remedy: str = "") -> None:
        super().__init__(f"token: {doing} failed: {ckr_name(ckr)}" + (f"; {remedy}" if remedy else ""))
        self.ckr = ckr
        self.name = ckr_name(ckr)
        self.level = ladder_level(ckr)
