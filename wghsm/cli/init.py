"""`wghsm init`: from a bare machine to a gateway file that starts: token, keys, file, folders, and what to do next.

    folder -> SoftHSM token in a store of the custodian's own, or --token URI -> key and PSK root in it, where they are
    not there -> gateway file, checked -> the next commands, in words

What is there already is used and never replaced; so an init that failed half-way is given again. Of two at once in one
folder the second waits for the first.
"""

import base64
import contextlib
import dataclasses
import ipaddress
import os
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from wghsm.cli._gateway_text import gateway_text
from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli._owner import Answer, on_token
from wghsm.cli._peer_options import endpoint_of
from wghsm.cli._psk_file import locked, new_file
from wghsm.cli.shapes.gateways import Initialised
from wghsm.pkcs11_backend import TokenError, TokenPool, TokenUri
from wghsm.pkcs11_backend.errors import KeyNotFound
from wghsm.pkcs11_backend.provision import derive_root, generate_key
from wghsm.softhsm_setup import make_token

__all__ = ["init"]

_CUSTODIAN_UID = 61100
_KEY = "gateway"
_ROOT = "wghsm-psk-root"


@dataclass(frozen=True)
class _Token:
    """The token's URI, and what the shell and the service need in their environment for it."""

    uri: str
    environment: dict[str, str]
    made: bool


@click.command()
@click.argument("name", default="wg0")
@click.option(
    "--folder", metavar="DIR", default="/etc/wghsm", show_default=True, help="Where token and gateway file go."
)
@click.option("--token", metavar="URI", help="pkcs11: URI of a token that is there (default: make a SoftHSM token).")
@click.option(
    "--address",
    "addresses",
    metavar="ADDRESS/LENGTH",
    multiple=True,
    help="The gateway's address in the tunnel; may be repeated (default: 10.8.0.1/24 and a random fd00::/8 one).",
)
@click.option(
    "--listen-port",
    metavar="PORT",
    type=click.IntRange(1, 65535),
    default=51820,
    show_default=True,
    help="Its UDP port.",
)
@click.option("--endpoint", metavar="HOST[:PORT]", help="Where clients find it, for their configurations.")
@click.option("--dns", metavar="ADDRESS", multiple=True, help="What clients use as resolver; may be repeated.")
@json_option
def init(
    name: str,
    folder: str,
    token: str | None,
    addresses: tuple[str, ...],
    listen_port: int,
    endpoint: str | None,
    dns: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make all that the gateway NAME needs: a token, its key, a root of pre-shared keys, and a gateway file.

    Nothing that is there is replaced. Without --token a SoftHSM token is made: it separates processes and is no HSM.

    \b
    Examples:
      wghsm init --endpoint vpn.example.org
      wghsm init wg1 --token 'pkcs11:token=gw?module-path=/usr/lib/x.so&pin-source=prompt' --listen-port 51821
    """
    from wghsm.config import ConfigError, load_text

    place = Path(folder).absolute()
    file = place / f"{name}.yaml"
    if os.path.lexists(file):
        raise CommandError(f"{file} exists; nothing was changed: choose another NAME, or wghsm up {file}")
    chosen = list(addresses) or ["10.8.0.1/24", _random_address()]
    reached = None if endpoint is None else str(endpoint_of(endpoint, listen_port))

    def text(uri: str, root: str | None) -> str:
        return _text(name, uri, root, chosen, listen_port, reached, list(dns))

    # Faults of the options are told before anything is made.
    try:
        load_text(text(token or "pkcs11:token=x?module-path=/x", _ROOT), "the options")
    except ConfigError as error:
        raise ConfigError(dataclasses.replace(problem, line=0) for problem in error.problems) from None
    with _folder(place):
        if os.path.lexists(file):
            raise CommandError(
                f"another wghsm init has made {file} meanwhile; this one changed nothing: choose another NAME, or "
                f"wghsm up {file}"
            )
        found = _softhsm(place, name) if token is None else _Token(token, {}, made=False)
        answer = _provide(found)
        written = text(found.uri, _ROOT if answer["psk_root"] else None)
        load_text(written, str(file))
        new_file(file, written.encode())
        file.chmod(0o644)
    if as_json:
        print_json(Initialised(file=str(file), uri=found.uri, environment=found.environment, **answer))
        return
    click.echo(f"token:        {found.uri}")
    if found.made:
        click.echo("              SoftHSM keeps keys in files and memory: it separates processes, and is no HSM")
    click.echo(f"key:          {_KEY!r}, {'made in the token' if answer['key_made'] else 'in the token already'}")
    click.echo(f"public key:   {answer['public_key']}")
    click.echo(f"PSK root:     {_ROOT!r}" if answer["psk_root"] else f"PSK root:     none: {answer['why_no_root']}")
    click.echo(f"gateway file: {file}")
    click.echo("next:")
    for variable, value in found.environment.items():
        click.echo(f"  export {variable}={shlex.quote(value)}    # also in the unit of systemd: Environment=")
    click.echo(f"  wghsm up {file}")
    if reached is None:
        click.echo(f"  write endpoint: under clients: in {file}, where clients find the gateway")
    click.echo(f"  wghsm peer add phone --generate-client-key --qr -c {file}")


@contextlib.contextmanager
def _folder(place: Path) -> Iterator[None]:
    """Make the folder, for one init at a time; take it away again if nothing came into it.

    Raises CommandError and OSError.
    """
    missing = [each for each in (place, *place.parents) if not each.exists()]
    with contextlib.ExitStack() as held:
        while True:
            try:
                place.mkdir(mode=0o755, parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise CommandError(f"{place} is no folder; nothing was made: choose another with --folder") from None
            # The one before may have failed, and taken its folder away.
            with contextlib.suppress(FileNotFoundError):
                held.enter_context(locked(place, f"another wghsm init is at work in {place}; this one waits for it"))
                break
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                for each in missing:
                    each.rmdir()
            raise


def _softhsm(place: Path, name: str) -> _Token:
    """The SoftHSM token `name` in the folder; made if it is not there. Raises TokenError."""
    directory = place / "hsm"
    pin = directory / f"{name}.pin"
    conf = directory / "softhsm2.conf"
    if pin.exists() and conf.exists():
        from wghsm.softhsm_setup import find_module

        uri = str(TokenUri(module_path=find_module(), token=name, pin_source=f"file:{pin}"))
        found = _Token(uri, {"SOFTHSM2_CONF": str(conf)}, made=False)
    else:
        uid = _CUSTODIAN_UID if os.geteuid() == 0 else None
        made = make_token(directory, label=name, uid=uid)
        found = _Token(made.uri, made.environment, made=True)
    os.environ.update(found.environment)
    return found


def _provide(token: _Token) -> dict[str, Any]:
    """Key and root, made where they are not there: the public facts. Raises TokenError and CommandError."""

    def work(pool: TokenPool) -> Answer:
        made = False
        try:
            key = pool.find_key(_KEY)
        except KeyNotFound:
            key, made = generate_key(pool, _KEY), True
        why = ""
        try:
            try:
                pool.find_root(_ROOT)
            except KeyNotFound:
                derive_root(pool, _ROOT)
        except TokenError as error:
            # Not every token can do HMAC; PSKs can be wrapped, objects, or none.
            why = str(error)
        public = base64.b64encode(key.public_key).decode()
        return Answer({"public_key": public, "key_made": made, "psk_root": not why, "why_no_root": why or None})

    data = on_token(TokenUri.parse(token.uri), work, read_write=True).data
    if not isinstance(data, dict):
        raise CommandError("the token work gave no report")
    return data


def _text(
    name: str,
    uri: str,
    root: str | None,
    addresses: list[str],
    port: int,
    endpoint: str | None,
    dns: list[str],
) -> str:
    clients = {"endpoint": endpoint, "dns": dns or None}
    head = ["Made by `wghsm init`; yours to edit. docs/configuration.md tells of every key."]
    text = gateway_text(
        head,
        {
            "token": {"uri": uri, "psk_root": root},
            "interface": {"name": name, "key": _KEY, "listen_port": port, "addresses": addresses},
            "clients": clients,
        },
        [],
    )
    if endpoint is None and not dns:
        text = text.replace("peers: []", "# clients:\n#   endpoint: vpn.example.org:51820\npeers: []")
    return text


def _random_address() -> str:
    """The first address of a random network of fd00::/8 (RFC 4193)."""
    return str(ipaddress.IPv6Interface(((0xFD << 120) | secrets.randbits(40) << 80 | 1, 64)))
