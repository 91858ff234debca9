"""`wghsm peer list` and `show`: the gateway file's peers, with what a running gateway knows of them."""

import time
from typing import TYPE_CHECKING

import click
import msgspec

from wghsm.cli import _completing
from wghsm.cli._admin import status_if_running
from wghsm.cli._gateway_files import gateway_path
from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli._peer_options import config_option
from wghsm.cli._psk_export import peer_of
from wghsm.cli._table import show_table
from wghsm.cli.shapes.peers import PeerShown

if TYPE_CHECKING:
    from wghsm.config import Gateway, Peer
    from wghsm.ipc.admin import PeerStatus

__all__ = ["list_", "show"]


@click.command(name="list")
@click.option("--tag", metavar="WORD", shell_complete=_completing.tags, help="Only peers that have this tag.")
@config_option
@json_option
def list_(tag: str | None, config: str | None, as_json: bool) -> None:
    """List the peers of the gateway file: state, addresses, last handshake.

    A state is active, disabled, expired, or not loaded: a running gateway has not read the file since, and still serves
    who is disabled here, or does not serve yet who is active.

    Example: wghsm peer list --tag phone
    """
    gateway, known = _read(config)
    peers = [peer for peer in gateway.peers if tag is None or tag in peer.tags]
    records = [_record(peer, known) for peer in peers]
    if as_json:
        print_json(records)
        return
    rows = [
        (
            record.name,
            record.state,
            ", ".join(record.allowed_ips) or "-",
            record.expires or "-",
            "-" if record.latest_handshake is None else _ago(record.latest_handshake),
            ", ".join(record.tags) or "-",
        )
        for record in records
    ]
    show_table(("NAME", "STATE", "ALLOWED IPS", "EXPIRES", "LAST HANDSHAKE", "TAGS"), rows)


@click.command()
@click.argument("name", shell_complete=_completing.peers)
@config_option
@json_option
def show(name: str, config: str | None, as_json: bool) -> None:
    """Show all about the peer NAME (or public key).

    Example: wghsm peer show alice-phone --json
    """
    gateway, known = _read(config)
    record = _record(peer_of(gateway, name), known)
    if as_json:
        print_json(record)
        return
    for key, value in msgspec.structs.asdict(record).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        if key == "latest_handshake" and value is not None:
            shown = _ago(value)
        click.echo(f"{key.replace('_', ' ') + ':':22}{'-' if shown in (None, '') else shown}")


def _read(config: str | None) -> "tuple[Gateway, dict[str, PeerStatus] | None]":
    """The gateway file, and what the running gateway says of each peer, by public key; None if it does not run."""
    from wghsm.config import load

    gateway = load(gateway_path(config))
    try:
        status = status_if_running(gateway.interface.name)
    except CommandError as error:
        click.echo(f"wghsm: {error}", err=True)
        return gateway, None
    return gateway, None if status is None else {peer.public_key: peer for peer in status.peers}


def _record(peer: "Peer", known: "dict[str, PeerStatus] | None") -> PeerShown:
    from wghsm.config import written

    key = written(peer.public_key)
    now = None if known is None else known.get(key)
    active = peer.active_at(time.time())
    unread = known is not None and active == (now is None)
    return PeerShown(
        name=peer.name,
        public_key=key,
        state="not loaded" if unread else "active" if active else "disabled" if peer.disabled else "expired",
        allowed_ips=written(peer.allowed_ips),
        preshared_key=written(peer.preshared_key),
        expires=written(peer.expires),
        note=peer.note or None,
        tags=written(peer.tags),
        endpoint=written(peer.endpoint) if now is None else now.endpoint,
        latest_handshake=None if now is None else now.latest_handshake,
        rx_bytes=None if now is None else now.rx_bytes,
        tx_bytes=None if now is None else now.tx_bytes,
    )


def _ago(unix: float) -> str:
    seconds = max(0, int(time.time() - unix))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
