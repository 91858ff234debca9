"""A good gateway file to break in tests, and keys for it."""

import base64

__all__ = ["GOOD", "KEY_A", "KEY_B", "KEY_C", "broken", "key"]


def key(number: int) -> str:
    """Base64 of a 32-byte public key that is no point of low order; one for each number."""
    return base64.b64encode((number + 9).to_bytes(32, "little")).decode()


KEY_A, KEY_B, KEY_C = key(1), key(2), key(3)

GOOD = f"""\
version: 1
token:
  uri: "pkcs11:token=gw?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/wghsm/pin"
  psk_root: wghsm-psk-root
  environment: [SOFTHSM2_CONF]
interface:
  name: wg0
  key: gateway
  listen_port: 51820
  addresses: [10.8.0.1/24, "fd08::1/64"]
  mtu: 1420
  table: auto
  authority: file
peers:
  - name: alice
    public_key: {KEY_A}
    preshared_key: derived
    endpoint: 192.0.2.7:51820
    allowed_ips: [10.8.0.2/32, "fd08::2/128"]
    persistent_keepalive: 25
  - name: bob
    public_key: {KEY_B}
    preshared_key: none
    allowed_ips:
      - 10.8.0.3/32
"""


def broken(old: str, new: str) -> str:
    """GOOD with one piece replaced; the piece must be there exactly once."""
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)
