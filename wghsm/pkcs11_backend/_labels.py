"""Labels of new objects: `provision`, `key_import` and `key_backup` refuse one that is taken or cannot be typed."""

from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._objects import CKA
from wghsm.pkcs11_backend.errors import LabelTaken, UriError

__all__ = ["refuse_taken"]


def refuse_taken(calls: Calls, token: str, label: str) -> None:
    """Refuse a label that an object of `token` has, or that is no label. Raises LabelTaken, UriError, TokenFault."""
    if not label or len(label.encode()) > 255 or not label.isprintable():
        raise UriError("a label has 1 to 255 printable characters")
    if calls.find(((CKA["LABEL"], label.encode()),), limit=1):
        raise LabelTaken(
            f"{token}: an object with the label {label!r} exists; nothing was changed: choose another label"
        )
