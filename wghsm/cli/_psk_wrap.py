"""`wghsm psk wrap`: seal a PSK under the token's wrapping key, into the file that the gateway file names.

PSK on standard input (or generated) -> AES-GCM in the token -> FILE: the new epoch, and the one before it
"""

import base64
import os
from typing import TYPE_CHECKING, Any

import click

from wghsm.cli import _completing
from wghsm.cli._every import first_only
from wghsm.cli._gateway_files import gateway_path
from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli._owner import Answer
from wghsm.cli._peer_options import config_option
from wghsm.cli._psk_export import peer_of
from wghsm.cli._psk_file import locked, replace_file
from wghsm.cli._psk_input import read_psk
from wghsm.cli._recording import Deed, recording
from wghsm.cli._target import Target, target_of
from wghsm.cli.shapes.psks import PskSealed, WrapKeyMade
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend.wrapping import find_wrap_key, make_wrap_key, wrap_psk
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from wghsm.config import Gateway

__all__ = ["seal", "wrap"]


@click.command()
@click.argument("peer", required=False, shell_complete=_completing.peers)
@click.option("--make-key", is_flag=True, help="Make the token's wrapping key, token.psk_wrap_key; no PEER then.")
@click.option("--generate", is_flag=True, help="Wrap a fresh random PSK; hand it out with: wghsm psk export PEER.")
@click.option(
    "--epoch",
    metavar="NUMBER",
    type=click.IntRange(0, 2**32 - 1),
    help="Epoch (default: the one after the file's newest).",
)
@config_option
@json_option
def wrap(
    peer: str | None, make_key: bool, generate: bool, epoch: int | None, config: str | None, as_json: bool
) -> None:
    """Wrap PEER's PSK, base64 on standard input, for preshared_key: wrapped:FILE.

    The file then holds ciphertext that only this token can open, for this peer, this gateway and this epoch. The PSK
    before it stays in the file, for as long as the peer has not moved.

    \b
    Examples:
      wghsm psk wrap --make-key -c /etc/wghsm/wg0.yaml
      wg genpsk | wghsm psk wrap alice -c /etc/wghsm/wg0.yaml
    """
    path = gateway_path(config)
    target = target_of(None, str(path))
    gateway = target.gateway
    if gateway is None or gateway.token.psk_wrap_key is None:
        raise _bad("the gateway file has no token.psk_wrap_key; write psk_wrap_key: LABEL under token:")
    label = gateway.token.psk_wrap_key
    if make_key:
        if peer is not None or generate or epoch is not None:
            raise _bad("--make-key makes the key alone; leave out PEER, --generate and --epoch")
        with recording(gateway, Deed("psk.make-wrap-key", label)) as record:
            record.on_token(target.uri, lambda pool: _made(pool, label), read_write=True)
        if as_json:
            print_json(WrapKeyMade(psk_wrap_key=label))
        else:
            click.echo(f"wrapping key {label!r} is in the token; it cannot be read out")
        first_only(target, f"wrapping key {label!r}", "clone it by their maker's means")
        return
    if peer is None:
        raise _bad("name the peer whose PSK is wrapped, or --make-key")
    with locked(path):
        report = seal(target, gateway, peer, label, epoch, generate=generate)
    if as_json:
        print_json(report)
    else:
        click.echo(f"{report.file}: the PSK of peer {report.peer!r} for epoch {report.epoch}, wrapped")
        name = gateway.interface.name
        click.echo(f"use it with: wghsm reload {name}; `wghsm status {name}` shows when the peer has moved")


def seal(
    target: Target, gateway: "Gateway", wanted: str, label: str, epoch: int | None, *, generate: bool
) -> PskSealed:
    """Wrap a PSK, from standard input or a fresh one, into the file of the peer `wanted`; gives the public facts."""
    from wghsm.config import PskWrapped, format_wrapped, read_wrapped

    found = peer_of(gateway, wanted)
    if not isinstance(found.preshared_key, PskWrapped):
        raise _bad(f"peer {found.name!r} has no wrapped PSK; write preshared_key: wrapped:FILE there")
    path = found.preshared_key.file
    before = read_wrapped(path) if path.exists() else []
    number = epoch if epoch is not None else before[0][0] + 1 if before else 0
    if number >= 2**32:
        raise _bad("there is no epoch after this one; start another file")
    if before and number <= before[0][0]:
        raise _bad(f"{path} has epoch {before[0][0]} already, and an epoch never comes again; leave out --epoch")
    psk = bytearray(os.urandom(32)) if generate else read_psk()

    def work(pool: Any) -> Answer:
        key = find_wrap_key(pool, label)
        own = pool.find_key(gateway.interface.key).public_key
        return Answer(base64.b64encode(wrap_psk(pool, key, own, found.public_key, number, psk)).decode())

    peer = base64.b64encode(found.public_key).decode("ascii")
    try:
        with recording(gateway, Deed("psk.wrap", label, peer, detail={"epoch": number})) as record:
            sealed = base64.b64decode(str(record.on_token(target.uri, work).data))
            replace_file(path, format_wrapped([(number, sealed), *before[:1]], found.name))
    finally:
        wipe(psk)
    previous = before[0][0] if before else None
    return PskSealed(peer=found.name, epoch=number, file=str(path), previous=previous)


def _made(pool: Any, label: str) -> Answer:
    make_wrap_key(pool, label)
    return Answer()


def _bad(message: str) -> CommandError:
    return CommandError(message, ExitCode.BAD_CONFIG)
