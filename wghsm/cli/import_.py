"""`wghsm import`: a wg-quick or systemd-networkd configuration becomes a gateway file, its keys go into the token.

    FILE -> _site_file -> Site -> gateway file's text, checked -> _site_keys: keys into the token -> files written
                                                               -> what was not carried over, in words

Until the keys are in the token nothing is written.
"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wghsm.cli._gateway_text import gateway_text
from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli._peer_psk import written_psk
from wghsm.cli._private_key import open_to_others
from wghsm.cli._psk_file import new_file
from wghsm.cli._site_file import read_site
from wghsm.cli._site_keys import WRAP_KEY, PskChoice, into_token, wrapped_files
from wghsm.cli._target import Target
from wghsm.cli.shapes.gateways import Imported, NotCarriedOver
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenUri
from wghsm.wgquick import Left

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
@click.option(
    "--psk",
    "psks",
    type=click.Choice(["object", "wrapped", "none"]),
    default="object",
    show_default=True,
    help="Pre-shared keys: objects of the token, files beside the new one that only the token can open, or left out.",
)
@click.option("--no-secrets", is_flag=True, help="Leave the token alone; say what is to be brought into it.")
@json_option
def import_(
    file: str,
    token: str,
    out: str,
    label: str,
    name: str | None,
    psk_root: str | None,
    psks: PskChoice,
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
        text = _text(site, token, label, psk_root, psks, path.name)
        gateway = load_text(text, str(made))
        files = wrapped_files(site, made.absolute().parent) if psks == "wrapped" else {}
        brought = None
        if not no_secrets:
            if not site.private_key:
                raise CommandError(
                    f"{path}: there is no PrivateKey in it; nothing was changed: use --no-secrets, with the key in the "
                    "token already (wghsm key import)",
                    ExitCode.BAD_CONFIG,
                )
            brought = into_token(Target(uri, gateway), site, label, psks, files)
        with_psk = [peer.name for peer in site.peers if peer.psk]
        has_key = bool(site.private_key)
    finally:
        site.wipe()
    if psks == "none":
        advice = "left out; take it out of {}'s configuration too, or there is no handshake with it"
        site.left += [
            Left(peer.line, "PresharedKey", advice.format(peer.name)) for peer in site.peers if peer.name in with_psk
        ]
    public = None if brought is None else brought.public_key
    for psk_file, sealed in {} if brought is None else brought.files.items():
        new_file(psk_file, sealed.encode())
    new_file(made, text.encode())
    made.chmod(0o644)
    if as_json:
        print_json(
            Imported(
                file=str(made),
                interface=site.name,
                public_key=public,
                peers=[peer.name for peer in site.peers],
                preshared_keys=with_psk,
                preshared_keys_as=psks,
                secrets="left out" if no_secrets else "in the token",
                not_carried_over=[
                    NotCarriedOver(line=each.line, key=each.key, advice=each.advice) for each in site.left
                ],
            )
        )
        return
    count = f"{len(site.peers)} {'peer' if len(site.peers) == 1 else 'peers'}"
    click.echo(f"{made}: {site.name}, {count}")
    if public is not None:
        fate = _fate(psks, len(with_psk))
        click.echo(f"the private key is in the token as {label!r}{fate}; the gateway's public key stays:\n{public}")
    else:
        click.echo(f"still to be brought into the token, before the first start (-c {made}):")
        click.echo(f"  wghsm key import {label} -c {made}{_source(site, path, has_key=has_key)}")
        if psks == "wrapped" and with_psk:
            click.echo(f"  wghsm psk wrap --make-key -c {made}")
        verb = {"object": "put {}-psk", "wrapped": "wrap {}"}.get(psks)
        for peer in with_psk if verb else ():
            words = str(verb).format(peer)
            click.echo(f"  wghsm psk {words} -c {made}    the PresharedKey of {peer}, on standard input")
    if site.left:
        click.echo("not carried over:")
        for each in site.left:
            where = f"line {each.line}: " if each.line else ""
            click.echo(f"  {where}{each.key}: {each.advice}")
    click.echo("next:")
    click.echo(f"  wghsm check {made}")
    click.echo(f"  stop what has run {site.name} until now, then: wghsm up {made}")
    if has_key or with_psk:
        where = f"{path}, which others can read," if open_to_others(file) else str(path)
        named = " or the files that it names" if _has_key_files(site) else ""
        click.echo(
            f"the keys in clear are still in {where}{named}: once the gateway works, destroy every copy", err=True
        )


def _source(site: "Site", path: Path, *, has_key: bool) -> str:
    """Where `wghsm key import` takes the private key from: the rest of its command line, or words behind it."""
    if not has_key:
        return "    the gateway's private key, on standard input; or nothing, where it is in the token already"
    if site.private_key_file:
        return f" < {shlex.quote(site.private_key_file)}"
    if path.suffix == ".netdev":
        return f"    the PrivateKey of {path}, on standard input"
    return f" --wg-quick {path}"


def _has_key_files(site: "Site") -> bool:
    return bool(site.private_key_file or any(peer.psk_file for peer in site.peers))


def _fate(psks: PskChoice, count: int) -> str:
    """What has become of the pre-shared keys, as a part of a sentence."""
    if not count or psks == "none":
        return ""
    keys = "1 pre-shared key" if count == 1 else f"{count} pre-shared keys"
    if psks == "wrapped":
        return f", {keys} {'lies' if count == 1 else 'lie'} beside the gateway file, wrapped under its key {WRAP_KEY!r}"
    return f", and so {'is' if count == 1 else 'are'} {keys}"


def _text(site: "Site", token: str, label: str, psk_root: str | None, psks: PskChoice, source: str) -> str:
    wrap_key = WRAP_KEY if psks == "wrapped" and any(peer.psk for peer in site.peers) else None
    return gateway_text(
        [f"Made by `wghsm import` from {source}. docs/configuration.md tells of every key."],
        {
            "token": {"uri": token, "psk_root": psk_root, "psk_wrap_key": wrap_key},
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
                "preshared_key": written_psk(psks, peer.name) if peer.psk else "none",
                "endpoint": peer.endpoint or None,
                "allowed_ips": peer.allowed_ips,
                "persistent_keepalive": peer.keepalive or None,
            }
            for peer in site.peers
        ],
    )


def _mark(text: str) -> str | int:
    return int(text) if text.isdigit() else text
