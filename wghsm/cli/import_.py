"""`wghsm import`: a wg-quick or systemd-networkd configuration becomes a gateway file, its keys go into the token.

    FILE -> _site_file -> Site -> gateway file's text, checked -> private key and PSKs into every token -> file written
                                                               -> what was not carried over, in words

Until the keys are in the token nothing is written; if one of them is refused, those before it are taken out again.
"""

import base64
import binascii
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wghsm.cli._every import in_every_token
from wghsm.cli._gateway_text import gateway_text
from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli._owner import Answer
from wghsm.cli._private_key import open_to_others
from wghsm.cli._psk_file import new_file
from wghsm.cli._site_file import read_site
from wghsm.cli._target import Target
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenPool, TokenUri
from wghsm.pkcs11_backend.key_import import import_key
from wghsm.pkcs11_backend.provision import destroy_key, destroy_secret, put_psk
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from wghsm.wgquick import Site

__all__ = ["import_"]


@click.command(name="import")
@click.argument("file", type=click.Path())
@click.option("--token", metavar="URI", required=True, help="pkcs11: URI of the token (RFC 7512), as the file gets it.")
@click.option("--out", metavar="GATEWAY.yaml", required=True, type=click.Path(), help="The new gateway file.")
@click.option("--key", "label", metavar="LABEL", default="gateway", show_default=True, help="The key's label there.")
@click.option("--name", metavar="NAME", help="Interface name (default: the file's).")
@click.option("--psk-root", metavar="LABEL", help="token.psk_root, for peers that come later.")
@click.option("--no-secrets", is_flag=True, help="Leave the token alone; say what is to be brought into it.")
@json_option
def import_(
    file: str,
    token: str,
    out: str,
    label: str,
    name: str | None,
    psk_root: str | None,
    no_secrets: bool,
    as_json: bool,
) -> None:
    """Turn a wg-quick FILE.conf or a systemd-networkd FILE.netdev into a gateway file.

    Its private key and pre-shared keys go into the token, so that no peer needs a change: the gateway's public key
    stays. What has no place in a gateway file is told, line by line. FILE itself is not changed.

    \b
    Examples:
      wghsm import /etc/wireguard/wg0.conf --out /etc/wghsm/wg0.yaml --token "$URI"
      wghsm import /etc/systemd/network/wg0.netdev --out /etc/wghsm/wg0.yaml --token "$URI" --no-secrets
    """
    from wghsm.config import load_text

    path, made = Path(file), Path(out)
    uri = TokenUri.parse(token)
    if made.exists() or made.is_symlink():
        raise CommandError(f"{made} exists; nothing was changed: choose another file or remove it")
    if not made.absolute().parent.is_dir():
        raise CommandError(f"{made.parent} is no folder; nothing was changed: make it first")
    site = read_site(path, name)
    try:
        text = _text(site, token, label, psk_root, path.name)
        gateway = load_text(text, str(made))
        public = None
        if not no_secrets:
            if not site.private_key:
                raise CommandError(
                    f"{path}: there is no PrivateKey in it; nothing was changed: use --no-secrets, with the key in the "
                    "token already (wghsm key import)",
                    ExitCode.BAD_CONFIG,
                )
            public = _into_token(Target(uri, gateway), site, label)
        with_psk = [peer.name for peer in site.peers if peer.psk]
    finally:
        site.wipe()
    new_file(made, text.encode())
    made.chmod(0o644)
    if as_json:
        print_json(
            {
                "file": str(made),
                "interface": site.name,
                "public_key": public,
                "peers": [peer.name for peer in site.peers],
                "preshared_keys": with_psk,
                "secrets": "left out" if no_secrets else "in the token",
                "not_carried_over": [{"line": each.line, "key": each.key, "advice": each.advice} for each in site.left],
            }
        )
        return
    count = f"{len(site.peers)} {'peer' if len(site.peers) == 1 else 'peers'}"
    click.echo(f"{made}: {site.name}, {count}")
    if public is not None:
        psks = f", and so are {len(with_psk)} pre-shared keys" if with_psk else ""
        click.echo(f"the private key is in the token as {label!r}{psks}; the gateway's public key stays:\n{public}")
    else:
        click.echo(f"still to be brought into the token, before the first start (-c {made}):")
        click.echo(f"  wghsm key import {label} -c {made} --wg-quick {path}")
        for peer in with_psk:
            click.echo(f"  wghsm psk put {peer}-psk -c {made}    the PresharedKey of {peer}, on standard input")
    if site.left:
        click.echo("not carried over:")
        for each in site.left:
            where = f"line {each.line}: " if each.line else ""
            click.echo(f"  {where}{each.key}: {each.advice.replace('NAME', site.name)}")
    click.echo("next:")
    click.echo(f"  wghsm check {made}")
    click.echo(f"  stop what has run {site.name} until now, then: wghsm up {made}")
    readable = ", which others can read" if open_to_others(file) else ""
    click.echo(
        f"{path}{readable} still holds the keys in clear: once the gateway works, destroy every copy of it", err=True
    )


def _text(site: "Site", token: str, label: str, psk_root: str | None, source: str) -> str:
    return gateway_text(
        [f"Made by `wghsm import` from {source}. docs/configuration.md tells of every key."],
        {
            "token": {"uri": token, "psk_root": psk_root},
            "interface": {
                "name": site.name,
                "key": label,
                "listen_port": site.listen_port or None,
                "addresses": site.addresses or None,
                "mtu": site.mtu or None,
                "table": None if site.table == "auto" else int(site.table) if site.table.isdigit() else site.table,
                "fwmark": None if site.fwmark in ("", "off") else _mark(site.fwmark),
            },
        },
        [
            {
                "name": peer.name,
                "public_key": peer.public_key,
                "preshared_key": f"object:{peer.name}-psk" if peer.psk else "none",
                "endpoint": peer.endpoint or None,
                "allowed_ips": peer.allowed_ips,
                "persistent_keepalive": peer.keepalive or None,
            }
            for peer in site.peers
        ],
    )


def _mark(text: str) -> str | int:
    return int(text) if text.isdigit() else text


def _into_token(target: Target, site: "Site", label: str) -> str:
    """Store the keys in every token; gives the gateway's public key. Raises TokenError and CommandError."""

    def work(pool: TokenPool) -> Answer:
        with contextlib.ExitStack() as undo:
            private = _decoded(site.private_key, "PrivateKey")
            try:
                key = import_key(pool, label, private)
            finally:
                wipe(private)
            undo.callback(destroy_key, pool, label)
            for peer in site.peers:
                if peer.psk:
                    _put(pool, f"{peer.name}-psk", peer.psk, undo)
            undo.pop_all()
        return Answer(base64.b64encode(key.public_key).decode())

    return str(in_every_token(target, work, read_write=True)[0].data)


def _put(pool: TokenPool, label: str, text: bytearray, undo: contextlib.ExitStack) -> None:
    psk = _decoded(text, f"the PresharedKey for {label}")
    try:
        put_psk(pool, label, psk)
    finally:
        wipe(psk)
    undo.callback(destroy_secret, pool, label)


def _decoded(text: bytearray, what: str) -> bytearray:
    value: Any = b""
    try:
        value = binascii.a2b_base64(text, strict_mode=True)
        key = bytearray(value)
    except binascii.Error:
        key = bytearray()
    finally:
        wipe(value)
    if len(key) != 32 or not any(key):
        wipe(key)
        raise CommandError(f"{what} is no key of 32 bytes in base64 (not shown); nothing was kept", ExitCode.BAD_CONFIG)
    return key
