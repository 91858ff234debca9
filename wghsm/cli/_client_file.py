"""A client's configuration, as wg-quick and the WireGuard apps take it: text, QR code, pictures.

    gateway file, peer, the gateway's public key, PSK and private key or not -> text in a bytearray, which is wiped
    text -> segno -> terminal | PNG | SVG

A QR code's text cannot be wiped: the library keeps copies until the process ends.
"""

import io
from typing import TYPE_CHECKING

import click
import segno

from wghsm.cli._addresses import own_addresses
from wghsm.cli._output import CommandError
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from wghsm.config import Endpoint, Gateway, Peer

__all__ = ["can_show_code", "client_file", "picture", "terminal_code"]

_PLACE_FOR_KEY = b"# PrivateKey = (the client's own)"
_SCALE = 6


def client_file(
    gateway: "Gateway",
    peer: "Peer",
    gateway_key: str,
    endpoint: "Endpoint",
    psk: bytearray,
    private: bytearray,
) -> bytearray:
    """The client's configuration; the caller wipes it. `psk` and `private`: base64, or empty."""
    clients, interface = gateway.clients, gateway.interface
    networks = dict.fromkeys(each.network for each in interface.addresses)
    addresses = own_addresses(interface.addresses, peer.allowed_ips) or peer.allowed_ips
    text = bytearray(f"# {peer.name}, for {interface.name}\n[Interface]\n".encode())
    if private:
        text += b"PrivateKey = "
        text += private
    else:
        text += _PLACE_FOR_KEY
    text += b"\n"
    lines = [f"Address = {', '.join(map(str, addresses))}"] if addresses else []
    lines += [f"DNS = {', '.join(clients.dns)}"] if clients.dns else []
    lines += [f"MTU = {interface.mtu}"] if interface.mtu not in ("auto", 1420) else []
    lines += ["", "[Peer]", f"PublicKey = {gateway_key}"]
    text += "".join(f"{line}\n" for line in lines).encode()
    if psk:
        text += b"PresharedKey = "
        text += psk
        text += b"\n"
    lines = [f"Endpoint = {endpoint}"]
    lines += [f"AllowedIPs = {', '.join(map(str, clients.allowed_ips or networks))}"]
    lines += [f"PersistentKeepalive = {clients.persistent_keepalive}"] if clients.persistent_keepalive else []
    text += "".join(f"{line}\n" for line in lines).encode()
    return text


def can_show_code(encoding: str) -> bool:
    """Whether this character set has the half blocks of `terminal_code`."""
    try:
        "\u2580\u2584\u2588".encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def terminal_code(text: bytearray) -> str:
    """The QR code of a client's configuration, in half blocks for a terminal. Raises CommandError.

    White on black is said, not hoped for: on a light terminal the code would be inverted, and many apps cannot read it.
    """
    drawn = io.StringIO()
    _code(text).terminal(drawn, compact=True)
    return "\n".join(click.style(line, fg="bright_white", bg="black") for line in drawn.getvalue().splitlines())


def picture(text: bytearray, kind: str) -> bytes:
    """The QR code as a file of this kind: png or svg. Raises CommandError."""
    drawn = io.BytesIO()
    _code(text).save(drawn, kind=kind, scale=_SCALE, light="white")
    return drawn.getvalue()


def _code(text: bytearray) -> segno.QRCode:
    try:
        return segno.make_qr(bytes(text), error="m")
    except segno.DataOverflowError:
        raise CommandError(
            "this configuration is too long for a QR code; shorten clients.allowed_ips, or use --out FILE",
            ExitCode.BAD_CONFIG,
        ) from None
