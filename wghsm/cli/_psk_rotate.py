"""`wghsm psk rotate`: the next epoch of a derived PSK, written into the gateway file; nothing else in it changes."""

import base64
import shlex
from typing import TYPE_CHECKING

import click

from wghsm.cli import _completing
from wghsm.cli._gateway_files import gateway_path
from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli._peer_options import config_option
from wghsm.cli._psk_export import peer_of
from wghsm.cli._psk_file import locked, replace_file, replaced_psk
from wghsm.cli._recording import Deed, recording
from wghsm.cli.shapes.psks import PskRotated
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from wghsm.config import Peer

__all__ = ["rotate"]


@click.command()
@click.argument("peer", shell_complete=_completing.peers)
@config_option
@json_option
def rotate(peer: str, config: str | None, as_json: bool) -> None:
    """Raise the epoch of PEER's derived PSK in the gateway file by one.

    The gateway and the peer need not change at the same time: until the peer has used the new PSK, the one before
    stays usable for token.psk_overlap.

    Example: wghsm psk rotate alice -c /etc/wghsm/wg0.yaml
    """
    from wghsm.config import PskDerived, load, load_peers, peer_place

    path = gateway_path(config)
    with locked(path):
        gateway = load(path)
        found = peer_of(gateway, peer)
        before = _epoch(found)
        file, position = peer_place(path, gateway.peers.index(found))
        text = file.read_bytes().decode("utf-8")
        changed = replaced_psk(text, position, f"derived:{before + 1}")
        wanted = found.model_copy(update={"preshared_key": PskDerived(before + 1)})
        # What was written must say this and nothing else.
        again = load_peers(changed.removeprefix("\ufeff"), str(file))[position]
        if again != wanted:
            raise CommandError(f"{file}: peer {found.name!r} could not be changed safely; write derived:{before + 1}")
        key = base64.b64encode(found.public_key).decode("ascii")
        with recording(gateway, Deed("psk.rotate", "", key, detail={"epoch": before + 1})):
            replace_file(file, changed)
    overlap = gateway.token.psk_overlap
    name = gateway.interface.name
    if as_json:
        print_json(PskRotated(peer=found.name, epoch=before + 1, previous=before, overlap_seconds=overlap))
        return
    click.echo(f"{file}: peer {found.name!r} has epoch {before + 1} now; next:")
    export = shlex.join(["wghsm", "psk", "export", found.name, "-c", str(path), "--out", f"{found.name}.psk"])
    click.echo(f"  1. {export}    # for the client")
    click.echo(f"  2. wghsm reload {name}    # the gateway knows both from then on")
    click.echo(f"  3. give the client its PSK; epoch {before} stays usable for {_span(overlap)} or until it has moved")
    click.echo(f"  4. wghsm status {name}    # says when the peer has moved")


def _epoch(found: "Peer") -> int:
    from wghsm.config import PskDerived, PskWrapped

    if isinstance(found.preshared_key, PskWrapped):
        raise _bad(
            f"peer {found.name!r} has a wrapped PSK: give it the next one with "
            f"`wghsm psk wrap {found.name}`, or --generate"
        )
    if not isinstance(found.preshared_key, PskDerived):
        raise _bad(
            f"peer {found.name!r} has no derived PSK, and only that has epochs to raise; an object is replaced with "
            "`wghsm psk put LABEL --replace`, on both sides at once"
        )
    if found.preshared_key.epoch >= 2**32 - 1:
        raise _bad("there is no epoch after this one; make a new root")
    return found.preshared_key.epoch


def _span(seconds: int) -> str:
    for length, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length and seconds % length == 0:
            return f"{seconds // length} {unit}{'s' if seconds != length else ''}"
    return f"{seconds} seconds"


def _bad(message: str) -> CommandError:
    return CommandError(message, ExitCode.BAD_CONFIG)
