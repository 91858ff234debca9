"""What the `wghsm key` commands say of a key in the token, and in a word what it means for its custody."""

import base64

import msgspec

from wghsm.cli.shapes.keys import Custody, KeyReported
from wghsm.pkcs11_backend.provision import KeyReport

__all__ = ["CUSTODY", "base64_text", "plain_report"]


def plain_report(report: KeyReport) -> dict[str, object]:
    """The report in JSON values, as a `KeyReported` has them."""
    shown = KeyReported(
        label=report.label,
        id=report.id,
        key_type=report.key_type,
        dialect=report.dialect,
        public_key=None if report.public_key is None else base64_text(report.public_key),
        public_key_checked=report.public_key_checked,
        attributes=report.attributes,
        value_readable=report.value_readable,
        custody=_custody(report),
    )
    return msgspec.structs.asdict(shown)


CUSTODY: dict[Custody, str] = {
    "broken": "none: the token gives the key out",
    "been-outside": "the key has been outside this token, or could have been (imported or restored)",
    "wrappable": "made in the token and never readable, but it may leave wrapped under another key",
    "never-outside": "the key has never been outside, says the token",
    "not-stated": "the token does not state whether the key has been outside",
}


def _custody(report: KeyReport) -> Custody:
    """Sum up what the token says; its word is all there is, and LOCAL alone proves nothing (NSS never sets it)."""
    said = report.attributes
    if report.value_readable or said["SENSITIVE"] is False:
        return "broken"
    if said["ALWAYS_SENSITIVE"] is False:
        return "been-outside"
    if said["ALWAYS_SENSITIVE"] is None or said["NEVER_EXTRACTABLE"] is None:
        return "not-stated"
    return "never-outside" if said["NEVER_EXTRACTABLE"] else "wrappable"


def base64_text(value: bytes) -> str:
    """Public keys as the commands print them."""
    return base64.b64encode(value).decode("ascii")
