"""`preshared_key` of a peer: where its pre-shared key comes from. No kind of it holds the key.

Called by the field of `_model` and by `_conflicts`. A value that may be a key is not repeated in a fault.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from wghsm.config._scalar import fault, is_key, keylike, text_of
from wghsm.config._values import label

__all__ = ["Psk", "PskDerived", "PskNone", "PskObject", "PskWrapped", "psk"]


@dataclass(frozen=True, slots=True)
class PskNone:
    """No pre-shared key with this peer."""


@dataclass(frozen=True, slots=True)
class PskDerived:
    """The pre-shared key is derived in the token from `token.psk_root` (SEAMS.md, "The custodian's rules").

    `epoch` is a u32; the next one gives another key.
    """

    epoch: int = 0


@dataclass(frozen=True, slots=True)
class PskObject:
    """The pre-shared key is the token's object with this label."""

    label: str


@dataclass(frozen=True, slots=True)
class PskWrapped:
    """The pre-shared key is in `file`, sealed under `token.psk_wrap_key`. `load` makes the path absolute."""

    file: Path


Psk = PskNone | PskDerived | PskObject | PskWrapped


def psk(value: object) -> Psk:
    """`derived`, `derived:EPOCH`, `object:LABEL`, `wrapped:FILE` or `none`.

    Anything else may be a key in clear and is not repeated.
    """
    if isinstance(value, PskNone | PskDerived | PskObject | PskWrapped):
        return value
    remedy = "write derived, derived:EPOCH, wrapped:FILE, object:LABEL or none"
    text = text_of(value, remedy)
    if text == "none":
        return PskNone()
    if text == "derived":
        return PskDerived()
    if text.startswith("derived:"):
        epoch = text.removeprefix("derived:")
        if not re.fullmatch(r"[0-9]{1,10}", epoch, re.ASCII) or int(epoch) >= 2**32:
            fault("the epoch of a derived pre-shared key is no number below 2^32", "write derived:1, derived:2, ...")
        return PskDerived(int(epoch))
    if text.startswith("wrapped:"):
        return PskWrapped(_wrapped_file(text.removeprefix("wrapped:")))
    if not text.startswith("object:"):
        if keylike(text):
            fault(
                "a key in clear has no place in this file",
                "put it into the token with `wghsm psk put LABEL`, and write object:LABEL here; "
                "count the key as seen by everybody who could read this file",
            )
        fault(f"{len(text)} characters that are none of derived, wrapped:FILE, object:LABEL and none", remedy)
    return PskObject(label(text.removeprefix("object:"), "the pre-shared key"))


def _wrapped_file(text: str) -> Path:
    remedy = "write wrapped:FILE with a file beside this one, such as wrapped:alice.psk"
    if is_key(text):
        fault("a key stands where the file of a wrapped pre-shared key belongs", remedy)
    if not text or not text.isprintable() or len(text) > 200 or text != text.strip() or ".." in text.split("/"):
        fault("the file of a wrapped pre-shared key is empty, too long, not printable or has ..", remedy)
    return Path(text)
