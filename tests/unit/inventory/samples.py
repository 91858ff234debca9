"""A gateway file and what a token answered, for the tests of the inventory."""

import base64
from typing import Any

from wghsm.config import Gateway, load_text

KEYS = {name: bytes([number]) + bytes(30) + b"\x01" for number, name in enumerate(("alice", "bob", "carol", "dora"), 3)}
OWN = bytes(range(32))
NOW = 1_700_000_000
DAY = 86_400
URI = "pkcs11:token=gw?module-path=/m.so"


def gateway(policy: str = "{}", name: str = "wg0", audit: str = "") -> Gateway:
    """A gateway with a peer of each kind of pre-shared key."""
    kinds = {"alice": "derived:2", "bob": "object:bob-psk", "carol": "wrapped:carol.psk", "dora": "none"}
    peers = "".join(
        f"- {{name: {each}, public_key: {base64.b64encode(KEYS[each]).decode()}, preshared_key: {kinds[each]}, "
        f"allowed_ips: []}}\n"
        for each in KEYS
    )
    return load_text(
        f'version: 1\ntoken: {{uri: "{URI}", psk_root: root, psk_wrap_key: wrap}}\n'
        f"interface: {{name: {name}, key: gateway, previous_key: before}}\npolicy: {policy}\n{audit}peers:\n{peers}"
    )


def key(label: str, made: tuple[str, str] | None = None, **said: Any) -> dict[str, Any]:
    """A private key's report."""
    return {
        "label": label,
        "id": "01",
        "key_type": 0x41,
        "dialect": "montgomery",
        "public_key": base64.b64encode(OWN).decode(),
        "public_key_checked": False,
        "attributes": {"LOCAL": True, "ALWAYS_SENSITIVE": True, "SIGN": False},
        "value_readable": False,
        "custody": "never-outside",
        "made": made,
        **said,
    }


def secret(label: str, kind: str, made: tuple[str, str] | None = None, **attributes: bool) -> dict[str, Any]:
    """A secret's report."""
    said = {"LOCAL": True, "ALWAYS_SENSITIVE": True, **attributes}
    return {"label": label, "id": "02", "kind": kind, "length": 32, "attributes": said, "made": made}
