"""`wghsm key retire`: the gateway's previous key goes out of the gateway file, when no peer uses it any more.

    running gateway's status: does anybody? -> wrapped PSKs that are still sealed for it -> gateway file

The key itself stays in the token: destroying it is a step of its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from wghsm.cli._admin import status_if_running
from wghsm.cli._gateway_files import gateway_path
from wghsm.cli._key_file import changed_keys
from wghsm.cli._key_pending import Pending
from wghsm.cli._key_reseal import resealed, wrapped_files, write_resealed
from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli._owner import Answer
from wghsm.cli._peer_options import config_option
from wghsm.cli._psk_file import locked, replace_file
from wghsm.cli._recording import Deed, Recording, recording
from wghsm.cli.shapes.keys import KeyRetired
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenPool, TokenUri
from wghsm.pkcs11_backend.errors import KeyNotFound

if TYPE_CHECKING:
    from wghsm.config import Gateway

__all__ = ["retire"]


@dataclass(frozen=True)
class _Users:
    """Peers by name: who still uses the previous key, and of whom nothing is known. None where nobody can tell."""

    still: list[str]
    unseen: list[str]


@click.command()
@config_option
@click.option("--force", is_flag=True, help="Also if peers still use it, or if nobody can tell: they are cut off.")
@json_option
def retire(config: str | None, force: bool, as_json: bool) -> None:
    """Take previous_key out of the gateway file, once every peer uses the new key.

    Refused while the running gateway knows of peers that last used the old key; --force cuts them off. The key stays
    in the token until `wghsm key destroy`.

    Exit code 1: peers still use it, they are named. Exit code 6: the gateway is not running, so nobody can tell.

    Example: wghsm key retire -c /etc/wghsm/wg0.yaml
    """
    path = gateway_path(config)
    with locked(path):
        report = _retire(path, force=force)
    if as_json:
        print_json(report)
        return
    label, name = report.retired, report.gateway
    if label is None:
        click.echo(f"{path} has no previous_key: there is nothing to retire")
        return
    click.echo(f"{path}: {label!r} is no key of gateway {name} any more")
    if report.still:
        click.echo(f"cut off until they have the new public key: {', '.join(report.still)}")
    if report.unseen:
        click.echo(f"seen with neither key, and cut off too if they have the old one: {', '.join(report.unseen)}")
    click.echo("next:")
    click.echo(f"  1. wghsm reload {name}    # ends the last sessions under it")
    click.echo(f"  2. wghsm key destroy {label} -c {path}    # for good")


def _retire(path: Path, *, force: bool) -> KeyRetired:
    from wghsm.config import load

    gateway = load(path)
    own = gateway.interface
    if own.previous_key is None:
        if Pending.read(path) is not None:
            _bad(f"a rotation of the key is not through; first: wghsm key rotate -c {path}")
        return KeyRetired(gateway=own.name, retired=None, still=[], unseen=[], resealed=[])
    users = _users(gateway, force=force)
    if users is not None and users.still and not force:
        count = f"{len(users.still)} of {len(gateway.peers)} peers still use"
        raise CommandError(
            f"{count} {own.previous_key!r}: {', '.join(users.still)}; give them the new public key and wait until "
            f"wghsm status {own.name} says that they have moved, or cut them off with --force"
        )
    with recording(gateway, Deed("key.retire", own.previous_key, detail={"force": int(force)})) as record:
        changed = _out_of_use(path, gateway, record, own.previous_key)
    return KeyRetired(
        gateway=own.name,
        retired=own.previous_key,
        still=None if users is None else users.still,
        unseen=None if users is None else users.unseen,
        resealed=[str(each) for each in changed],
    )


def _out_of_use(path: Path, gateway: "Gateway", record: Recording, label: str) -> list[Path]:
    """Seal what is wrapped for the key `label` for the other one, and name it no more; return the files changed."""
    own = gateway.interface
    files = wrapped_files(gateway)
    changed: list[Path] = []
    if files:
        wrap_key = gateway.token.psk_wrap_key

        def work(pool: TokenPool) -> Answer:
            new = pool.find_key(own.key).public_key
            try:
                old = pool.find_key(label).public_key
            except KeyNotFound:
                old = None
            return Answer({"sealed": resealed(pool, wrap_key, new, old, files)})

        answer = record.on_token(TokenUri.parse(gateway.token.uri), work)
        if not isinstance(answer.data, dict):
            raise CommandError("the token work gave no report")
        changed = write_resealed(files, answer.data["sealed"])
    Pending.remove(path)
    replace_file(path, changed_keys(path.read_bytes().decode("utf-8"), str(path), own.key, None))
    return changed


def _users(gateway: "Gateway", *, force: bool) -> _Users | None:
    """Who uses which key, as the running gateway has it. Raises CommandError where it cannot tell, unless `force`."""
    own = gateway.interface
    try:
        status = status_if_running(own.name)
    except CommandError:
        if force:
            return None
        raise
    if status is None:
        if force:
            return None
        raise CommandError(
            f"gateway {own.name!r} is not running, so nobody knows who still uses {own.previous_key!r}; start it and "
            "wait until its peers have been there, or give --force",
            ExitCode.NOT_RUNNING,
        )
    if (status.key_label, status.previous_key_label) != (own.key, own.previous_key) or status.previous_key is None:
        if force:
            return None
        served = f"runs with {status.key_label!r}" if status.previous_key_label is None else "has not opened both keys"
        raise CommandError(
            f"gateway {own.name!r} {served}, so it does not know who still uses {own.previous_key!r}; first: "
            f"wghsm reload {own.name}, and wait until its peers have been there; or give --force"
        )
    return _Users(
        [peer.name or peer.public_key for peer in status.still_on_previous],
        [peer.name or peer.public_key for peer in status.peers if peer.gateway_key is None],
    )


def _bad(message: str) -> NoReturn:
    raise CommandError(message, ExitCode.BAD_CONFIG)
