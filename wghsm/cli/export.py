"""`wghsm export`: a gateway file as wg-quick would have it, without a secret: to compare, or to go back."""

import shlex
import time
from pathlib import Path

import click

from wghsm.cli._gateway_files import gateway_path
from wghsm.cli._output import json_option, print_json
from wghsm.cli._peer_options import config_option
from wghsm.cli._psk_file import new_file
from wghsm.cli._table import counted
from wghsm.cli.shapes.gateways import Exported
from wghsm.wgquick import Site, SitePeer, format_wg_quick

__all__ = ["export"]


@click.command()
@click.option("--out", metavar="FILE", help="Write a new file of mode 0600 (default: standard output).")
@config_option
@json_option
def export(out: str | None, config: str | None, as_json: bool) -> None:
    """Write the gateway file as a wg-quick configuration, without the keys: comments say where each of them is.

    Peers that are disabled or have expired are left out. wghsm import --no-secrets reads it again, but for what it says
    of pre-shared keys.

    Example: wghsm export -c /etc/wghsm/wg0.yaml --out wg0.conf
    """
    from wghsm.config import PskNone, load, written

    path = gateway_path(config)
    gateway = load(path)
    own, now = gateway.interface, time.time()
    active = [peer for peer in gateway.peers if peer.active_at(now)]
    left_out = [peer.name for peer in gateway.peers if not peer.active_at(now)]
    site = Site(
        name=own.name,
        addresses=[str(address) for address in own.addresses],
        listen_port=own.listen_port,
        mtu=None if own.mtu == "auto" else own.mtu,
        table=str(own.table),
        fwmark=f"{own.fwmark:#x}" if own.fwmark else "",
        peers=[
            SitePeer(
                line=0,
                name=peer.name,
                public_key=str(written(peer.public_key)),
                allowed_ips=[str(prefix) for prefix in peer.allowed_ips],
                endpoint=str(peer.endpoint or ""),
                keepalive=peer.persistent_keepalive,
            )
            for peer in active
        ],
    )
    psks = {
        peer.name: shlex.join(["wghsm", "psk", "export", peer.name, "-c", str(path)])
        for peer in active
        if not isinstance(peer.preshared_key, PskNone)
    }
    text = format_wg_quick(site, private_key=f"in the token, as {own.key}; it does not come out", psks=psks)
    if out is not None:
        new_file(Path(out), text.encode())
    if as_json:
        print_json(Exported(interface=own.name, file=out, config=text, left_out=left_out))
        return
    if out is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"{out}: {own.name}, {counted(len(active), 'peer')}, no secret")
    if left_out:
        click.echo(f"left out, as they are disabled or have expired: {', '.join(left_out)}", err=True)
