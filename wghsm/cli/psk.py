"""`wghsm psk derive-root|put|list|destroy|export`."""

import base64
import binascii
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import click

from wghsm.cli._output import CommandError, confirm, json_option, print_json
from wghsm.cli._owner import Answer, on_token
from wghsm.cli._psk_export import Request, request_of
from wghsm.cli._target import Target, identity_of, target_of, token_options
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenPool
from wghsm.pkcs11_backend.provision import derive_root as make_root
from wghsm.pkcs11_backend.provision import destroy_secret, list_secrets, put_psk
from wghsm.wipe import wipe

__all__ = ["psk"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def psk() -> None:
    """Make, store and hand out pre-shared keys."""


@psk.command("derive-root")
@click.argument("label", required=False)
@token_options
@json_option
def derive_root(label: str | None, token: str | None, config: str | None, as_json: bool) -> None:
    """Generate the root of derived PSKs in the token: it cannot be read out and may only sign.

    LABEL may be left out with -c: the file's token.psk_root then.

    Example: wghsm psk derive-root wghsm-psk-root -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    name = label or (target.gateway.token.psk_root if target.gateway is not None else None)
    if name is None:
        raise CommandError("name the root: give its LABEL", ExitCode.BAD_CONFIG)
    answer = on_token(target.uri, lambda pool: Answer(dataclasses.asdict(make_root(pool, name))), read_write=True)
    if as_json:
        print_json(answer.data)
    else:
        click.echo(f"root {name!r} is in the token; in the gateway file: psk_root: {name}")


@psk.command()
@click.argument("label")
@click.option("--replace", is_flag=True, help="Replace the PSK object that has the label.")
@token_options
@json_option
def put(label: str, replace: bool, token: str | None, config: str | None, as_json: bool) -> None:
    """Store a PSK as a token object; its base64 comes on standard input.

    Whoever has the PIN can read such an object; a derived PSK cannot be read from the token.

    Example: wg genpsk | wghsm psk put alice-psk -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    value = _read_psk()

    def work(pool: Any) -> Answer:
        put_psk(pool, label, value, replace=replace)
        return Answer()

    try:
        on_token(target.uri, work, read_write=True)
    finally:
        wipe(value)
    if as_json:
        print_json({"label": label, "stored": True})
    else:
        click.echo(f"PSK {label!r} is in the token; in the gateway file: preshared_key: object:{label}")


@psk.command(name="list")
@token_options
@json_option
def list_(token: str | None, config: str | None, as_json: bool) -> None:
    """List the roots and PSK objects of the token.

    Example: wghsm psk list -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    work = lambda pool: Answer([dataclasses.asdict(report) for report in list_secrets(pool)])  # noqa: E731
    answer = on_token(target.uri, work)
    reports = answer.data if isinstance(answer.data, list) else []
    if as_json:
        print_json(reports)
        return
    for report in reports:
        length = "length not stated" if report["length"] is None else f"{report['length']} bytes"
        click.echo(f"{report['label']}\t{report['kind']}\t{report['id'] or '-'}\t{length}")


@psk.command()
@click.argument("label")
@click.option("--id", "identity", metavar="HEX", help="CKA_ID, where several secrets have the label.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@token_options
@json_option
def destroy(label: str, identity: str | None, yes: bool, token: str | None, config: str | None, as_json: bool) -> None:
    """Destroy a PSK object or a root in the token, for good.

    Example: wghsm psk destroy alice-psk -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    wanted = identity_of(identity)
    confirm(
        f"Destroy secret {label!r} in {target.uri.describe_token()} for good?", yes=yes, refused="nothing was destroyed"
    )

    def work(pool: Any) -> Answer:
        destroy_secret(pool, label, wanted)
        return Answer()

    on_token(target.uri, work, read_write=True)
    if as_json:
        print_json({"label": label, "destroyed": True})
    else:
        click.echo(f"secret {label!r} is destroyed")


@psk.command()
@click.argument("peer", required=False)
@click.option("--object", "stored", metavar="LABEL", help="Export this PSK object.")
@click.option("--root", metavar="LABEL", help="With --key and a base64 PEER: derive from this root.")
@click.option("--key", metavar="LABEL", help="The gateway's key, for --root.")
@click.option("--epoch", type=click.IntRange(0, 2**32 - 1), help="Epoch of a derived PSK (default: the file's, or 0).")
@click.option("--out", metavar="FILE", help="Write a new file of mode 0600; - means standard output, even a pipe.")
@token_options
@json_option
def export(
    peer: str | None,
    stored: str | None,
    root: str | None,
    key: str | None,
    epoch: int | None,
    out: str | None,
    token: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Hand out a peer's PSK for the client's configuration, in base64.

    With -c, PEER is a peer's name or public key in the file. Without --out it is shown on a terminal only.

    \b
    Examples:
      wghsm psk export alice -c /etc/wghsm/wg0.yaml --out alice.psk
      wghsm psk export --object alice-psk --token 'pkcs11:token=gw?module-path=...&pin-source=prompt'
      wghsm psk export PUBLIC_KEY --root wghsm-psk-root --key gateway --token 'pkcs11:...'
    """
    target = target_of(token, config)
    request = request_of(target, peer=peer, stored=stored, root=root, key=key, epoch=epoch)
    if out is None and not sys.stdout.isatty():
        raise CommandError(
            "standard output is no terminal, and a PSK in a pipe ends up in logs; use --out FILE, or --out - to insist",
            ExitCode.BAD_CONFIG,
        )
    secret = _fetch(target, request)
    line = bytearray(base64.b64encode(secret))
    wipe(secret)
    try:
        shown: dict[str, object] = request.describe()
        if out is not None and out != "-":
            _write_new(Path(out), line)
            shown["file"] = str(Path(out).absolute())
        elif as_json:
            shown["preshared_key"] = line.decode("ascii")
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(line + b"\n")
            sys.stdout.buffer.flush()
            return
    finally:
        wipe(line)
    if as_json:
        print_json(shown)
    else:
        click.echo(f"{shown['file']}: the PSK {request.words()}; give it to the client, then remove the file")


def _fetch(target: Target, request: Request) -> bytearray:
    def work(pool: TokenPool) -> Answer:
        with pool.session() as session:
            if request.stored is not None:
                return Answer(secret=session.read_psk(pool.find_psk(request.stored)))
            gateway = pool.find_key(request.key).public_key
            root = pool.find_root(request.root)
            return Answer(secret=session.derived_psk(root, gateway, request.peer, request.epoch))

    secret = on_token(target.uri, work).secret
    if len(secret) != 32:
        raise CommandError("the token work gave no PSK")
    return secret


def _write_new(path: Path, line: bytearray) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise CommandError(f"{path} exists; nothing was written: choose another file or remove it") from None
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, line)
        os.write(descriptor, b"\n")
    finally:
        os.close(descriptor)


def _read_psk() -> bytearray:
    if sys.stdin.isatty():
        click.echo("PSK in base64, then Enter:", err=True)
    text = bytearray(256)
    length = 0
    # One line is enough, and a terminal gives no more.
    while length < len(text) and (not length or text[length - 1] != 0x0A):
        got = os.readv(0, [memoryview(text)[length:]])
        if got == 0:
            break
        length += got
    try:
        line = bytearray(memoryview(text)[:length]).strip()
        try:
            value = bytearray(binascii.a2b_base64(line, strict_mode=True))
        except binascii.Error:
            value = bytearray()
        finally:
            size = len(line)
            wipe(line)
    finally:
        wipe(text)
    if len(value) != 32 or size != 44:
        wipe(value)
        raise CommandError(
            "standard input is no PSK: it takes 44 characters of base64, as wg genpsk prints them", ExitCode.BAD_CONFIG
        )
    if not any(value):
        raise CommandError("the PSK is all zeros, which WireGuard reads as none; use wg genpsk", ExitCode.BAD_CONFIG)
    return value
