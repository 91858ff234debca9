"""`wghsm psk derive-root|put|list|destroy|export`; `wrap` and `rotate` have modules of their own."""

import base64
import dataclasses
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from wghsm.cli import _completing
from wghsm.cli._dependents import in_use, refuse_secret_in_use
from wghsm.cli._every import each_token, first_only, in_every_token, names_of
from wghsm.cli._output import CommandError, confirm, json_option, print_bytes, print_json
from wghsm.cli._owner import Answer
from wghsm.cli._psk_export import Request, request_of, was_handed_out
from wghsm.cli._psk_file import EXPORTS_WITHOUT_GATEWAY, Exports, current, new_file, refuse_old_file
from wghsm.cli._psk_input import read_psk
from wghsm.cli._psk_rotate import rotate
from wghsm.cli._psk_wrap import wrap
from wghsm.cli._recording import Deed, recording
from wghsm.cli._table import show_table
from wghsm.cli._target import Target, identity_of, target_of, token_options
from wghsm.cli.shapes.psks import PskDestroyed, PskOfPeer, PskStored, SecretReported, SecretSeen
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenPool
from wghsm.pkcs11_backend.errors import KeyNotFound, KeyUnfit, LabelTaken
from wghsm.pkcs11_backend.provision import derive_root as make_root
from wghsm.pkcs11_backend.provision import destroy_secret, list_secrets, put_psk
from wghsm.pkcs11_backend.wrapping import find_wrap_key, unwrap_psk
from wghsm.wipe import wipe

__all__ = ["fetch", "psk"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def psk() -> None:
    """Make, store and hand out pre-shared keys."""


psk.add_command(wrap)
psk.add_command(rotate)


@psk.command("derive-root")
@click.argument("label", required=False, shell_complete=_completing.secrets)
@token_options
@json_option
def derive_root(label: str | None, token: str | None, config: str | None, as_json: bool) -> None:
    """Generate the root of derived PSKs in the token: it cannot be read out and may only sign.

    LABEL may be left out with -c: the file's token.psk_root then. Of several tokens that the file names the first one
    gets it; the command says how the others come by it.

    Example: wghsm psk derive-root wghsm-psk-root -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    name = label or (target.gateway.token.psk_root if target.gateway is not None else None)
    if name is None:
        raise CommandError("name the root: give its LABEL", ExitCode.BAD_CONFIG)
    with recording(target.gateway, Deed("psk.derive-root", name)) as record:
        work = lambda pool: Answer(dataclasses.asdict(make_root(pool, name)))  # noqa: E731
        answer = record.on_token(target.uri, work, read_write=True)
    if as_json:
        print_json(msgspec.convert(answer.data, SecretReported))
    else:
        click.echo(f"root {name!r} is in the token; in the gateway file: psk_root: {name}")
    first_only(target, f"root {name!r}", "clone it by their maker's means")


@psk.command()
@click.argument("label", shell_complete=_completing.secrets)
@click.option("--replace", is_flag=True, help="Replace the PSK object that has the label.")
@token_options
@json_option
def put(label: str, replace: bool, token: str | None, config: str | None, as_json: bool) -> None:
    """Store a PSK as a token object; its base64 comes on standard input.

    Whoever has the PIN can read such an object; a derived PSK cannot be read from the token. With -c it goes into every
    token that the file names, and psk list --peers says "not distributed" until it is exported.

    Example: wg genpsk | wghsm psk put alice-psk -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    value = read_psk()

    def work(pool: Any) -> Answer:
        own = bytearray(value)
        try:
            put_psk(pool, label, own, replace=replace)
        except LabelTaken as fault:
            raise fault if replace else LabelTaken(f"{fault}, or give --replace where it is the PSK") from None
        finally:
            wipe(own)
        return Answer()

    try:
        with recording(target.gateway, Deed("psk.put", label, detail={"replace": int(replace)})) as record:
            in_every_token(target, work, read_write=True, do=record.on_token)
    finally:
        wipe(value)
    _forget_exports(target, label)
    if as_json:
        print_json(PskStored(label=label))
    else:
        click.echo(f"PSK {label!r} is in the token; in the gateway file: preshared_key: object:{label}")


@psk.command(name="list")
@click.option("--peers", is_flag=True, help="With -c: each peer's PSK and when it was handed out; no login.")
@token_options
@json_option
def list_(peers: bool, token: str | None, config: str | None, as_json: bool) -> None:
    """List the roots and PSK objects of the token (with -c of each that the file names), or the peers' PSKs.

    \b
    Examples:
      wghsm psk list -c /etc/wghsm/wg0.yaml
      wghsm psk list --peers -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    if peers:
        _list_peers(target, as_json)
        return
    looked = each_token(target, lambda pool: Answer([dataclasses.asdict(report) for report in list_secrets(pool)]))
    reports = looked.reports(SecretSeen)
    if as_json:
        print_json(reports)
    else:
        several = len(target.uris) > 1
        rows = [
            (
                report.label,
                *((report.token,) if several else ()),
                report.kind,
                "not stated" if report.length is None else f"{report.length} bytes",
                report.id or "-",
            )
            for report in reports
        ]
        show_table(("LABEL", *(("TOKEN",) if several else ()), "KIND", "LENGTH", "ID"), rows)
    looked.tell_faults()


@psk.command()
@click.argument("label", shell_complete=_completing.secrets)
@click.option("--id", "identity", metavar="HEX", help="CKA_ID, where several secrets have the label.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@token_options
@json_option
def destroy(label: str, identity: str | None, yes: bool, token: str | None, config: str | None, as_json: bool) -> None:
    """Destroy a PSK object, a root or a wrapping key in the token (with -c in each that the file names), for good.

    One that the file of -c names is refused; of several with the same label one may go, where --id says which.

    Example: wghsm psk destroy alice-psk -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    wanted = identity_of(identity)
    gateway = target.gateway
    named = None
    if gateway is not None:
        named = in_use(lambda: refuse_secret_in_use(gateway, label), one_of_several=wanted is not None)
    several = len(target.uris) > 1
    if several and wanted is not None:
        raise CommandError("--id names an object of one token; name the token with --token", ExitCode.BAD_CONFIG)
    confirm(f"Destroy secret {label!r} in {names_of(target)} for good?", yes=yes, refused="nothing was destroyed")

    def work(pool: Any) -> Answer:
        if named and sum(report.label == label for report in list_secrets(pool)) < 2:
            raise named
        try:
            destroy_secret(pool, label, wanted)
        except KeyNotFound:
            if not several:
                raise
            return Answer(0)
        return Answer(1)

    with recording(target.gateway, Deed("psk.destroy", label)) as record:
        if not any(answer.data for answer in in_every_token(target, work, read_write=True, do=record.on_token)):
            raise CommandError(f"no secret with the label {label!r} in {names_of(target)}", ExitCode.TOKEN_UNUSABLE)
    if as_json:
        print_json(PskDestroyed(label=label))
    else:
        click.echo(f"secret {label!r} is destroyed")


@psk.command()
@click.argument("peer", required=False, shell_complete=_completing.peers)
@click.option("--object", "stored", metavar="LABEL", help="Export this PSK object.")
@click.option("--root", metavar="LABEL", help="With --key and a base64 PEER: derive from this root.")
@click.option("--key", metavar="LABEL", help="The gateway's key, for --root.")
@click.option(
    "--epoch",
    metavar="NUMBER",
    type=click.IntRange(0, 2**32 - 1),
    help="Epoch of a derived PSK (default: the file's, or 0).",
)
@click.option("--previous-key", "previous", is_flag=True, help="With -c: for the file's previous_key, not its key.")
@click.option(
    "--peer-section", "section", is_flag=True, help="The PSK with the gateway's public key, as a [Peer] section."
)
@click.option("--out", metavar="FILE", help="Write a new file of mode 0600; - means standard output, even a pipe.")
@click.option("--record", metavar="FILE", help="Where to record this export, in place of the usual file.")
@token_options
@json_option
def export(
    peer: str | None,
    stored: str | None,
    root: str | None,
    key: str | None,
    epoch: int | None,
    previous: bool,
    section: bool,
    out: str | None,
    record: str | None,
    token: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Hand out a peer's PSK for the client's configuration, in base64.

    With -c, PEER is a peer's name or public key in the file. Each export is recorded first, without the PSK, in
    psk-exports.jsonl: with -c in the gateway's state folder, else in /var/lib/wghsm. Without --out the PSK is shown
    on a terminal only. A derived PSK is good with one key of the gateway only: hand out both together.

    \b
    Examples:
      wghsm psk export alice -c /etc/wghsm/wg0.yaml --out alice.psk
      wghsm psk export alice -c /etc/wghsm/wg0.yaml --peer-section --out alice.peer
      wghsm psk export --object alice-psk --token 'pkcs11:token=gw?module-path=...&pin-source=prompt'
      wghsm psk export PUBLIC_KEY --root wghsm-psk-root --key gateway --token 'pkcs11:...'
    """
    target = target_of(token, config)
    request = request_of(target, peer=peer, stored=stored, root=root, key=key, epoch=epoch, previous=previous)
    if section and not request.key:
        raise CommandError("--peer-section needs the gateway's key: -c GATEWAY.yaml, or --key", ExitCode.BAD_CONFIG)
    if out is None and not sys.stdout.isatty():
        raise CommandError(
            "standard output is no terminal, and a PSK in a pipe ends up in logs; use --out FILE, or --out - to insist",
            ExitCode.BAD_CONFIG,
        )
    to = "standard output" if out in (None, "-") else "file"
    if to == "file":
        refuse_old_file(Path(str(out)))
    secret, gateway_key = fetch(target, request, to, with_key=section or request.stored is None)
    try:
        _exports(target, record).append({"token": str(target.uri.describe_token()), **request.record(), "to": to})
    except BaseException:
        wipe(secret)
        raise
    line = bytearray(base64.b64encode(secret))
    wipe(secret)
    shown = request.shape(gateway_key)
    if section and gateway_key is not None:
        psk, line = line, request.section(gateway_key, line)
        wipe(psk)
    try:
        if out is not None and out != "-":
            line += b"\n"
            new_file(Path(out), line)
            shown = msgspec.structs.replace(shown, file=str(Path(out).absolute()))
        elif as_json:
            shown = msgspec.structs.replace(shown, **{"section" if section else "preshared_key": line.decode()})
        else:
            line += b"\n"
            print_bytes(line)
            return
    finally:
        wipe(line)
    if as_json:
        print_json(shown)
    else:
        also = "" if gateway_key is None or section else f", together with the gateway's public key {gateway_key}"
        click.echo(f"{shown.file}: the PSK {request.words()}; give it to the client{also}, then remove the file")


def _exports(target: Target, record: str | None) -> Exports:
    if record is not None:
        return Exports(Path(record))
    return Exports(EXPORTS_WITHOUT_GATEWAY) if target.gateway is None else Exports.of(target.gateway.state_directory)


def _forget_exports(target: Target, label: str) -> None:
    """What was handed out as the PSK object `label` is not what is in the token any more."""
    for path in {_exports(target, None).path, EXPORTS_WITHOUT_GATEWAY}:
        try:
            Exports(path).forget(label)
        except (CommandError, OSError):
            click.echo(f"warning: {path} cannot be written, and still says that {label!r} was handed out", err=True)


def _list_peers(target: Target, as_json: bool) -> None:
    from wghsm.config import PskNone

    if target.gateway is None:
        raise CommandError("--peers needs a gateway file: -c GATEWAY.yaml", ExitCode.BAD_CONFIG)
    recorded = (Exports.of(target.gateway.state_directory), Exports(EXPORTS_WITHOUT_GATEWAY))
    records = [record for exports in recorded for record in current(exports.all())]
    reports: list[PskOfPeer] = []
    for peer in target.gateway.peers:
        key = base64.b64encode(peer.public_key).decode("ascii")
        report = PskOfPeer(peer=peer.name, public_key=key, kind="none", epoch=None, distributed=False, last_export=None)
        if not isinstance(peer.preshared_key, PskNone):
            request = request_of(target, peer=key, stored=None, root=None, key=None, epoch=None)
            wanted = request.record()
            told = [one for one in records if was_handed_out(wanted, one)]
            last = [one for one in records if one.get("public_key") == key] + told
            report = msgspec.structs.replace(
                report,
                kind=request.kind,
                epoch=None if request.kind == "object" else request.epoch,
                distributed=bool(told),
                last_export=max((str(one["time"]) for one in last if "time" in one), default=None),
            )
        reports.append(report)
    if as_json:
        print_json(reports)
        return
    rows = [
        (
            report.peer,
            report.kind,
            "-" if report.epoch is None else str(report.epoch),
            "-" if report.kind == "none" else "distributed" if report.distributed else "not distributed",
            report.last_export or "-",
        )
        for report in reports
    ]
    show_table(("PEER", "PSK", "EPOCH", "STATE", "LAST EXPORT"), rows)


def fetch(target: Target, request: Request, to: str, *, with_key: bool) -> tuple[bytearray, str | None]:
    """The PSK, for the caller to wipe, and with `with_key` the gateway's public key in base64.

    `to` is where it goes, for the audit log. Raises TokenError and CommandError.
    """

    def work(pool: TokenPool) -> Answer:
        gateway = pool.find_key(request.key).public_key if with_key else b""
        shown = base64.b64encode(gateway).decode("ascii") or None
        if request.stored is not None:
            with pool.session() as session:
                return Answer(shown, session.read_psk(pool.find_psk(request.stored)))
        if request.wrap_key is not None:
            return Answer(shown, _unwrapped(pool, request, gateway))
        with pool.session() as session:
            root = pool.find_root(request.root)
            return Answer(shown, session.derived_psk(root, gateway, request.peer, request.epoch))

    with recording(target.gateway, _deed(request, to)) as recorded:
        answer = recorded.on_token(target.uri, work)
    if len(answer.secret) != 32:
        raise CommandError("the token work gave no PSK")
    return answer.secret, None if answer.data is None else str(answer.data)


def _deed(request: Request, to: str) -> Deed:
    """An export, as its record tells of it: which PSK and where it goes, never the PSK."""
    peer = base64.b64encode(request.peer).decode("ascii")
    detail: dict[str, str | int] = {"psk": request.kind, "to": to}
    if request.stored is None:
        detail["epoch"] = request.epoch
    return Deed("psk.export", request.stored or request.key, peer, "psk.export", detail)


def _unwrapped(pool: TokenPool, request: Request, gateway: bytes) -> bytearray:
    key = find_wrap_key(pool, str(request.wrap_key))
    try:
        return unwrap_psk(pool, key, gateway, request.peer, request.epoch, request.sealed)
    except KeyUnfit:
        if request.other_key is None:
            raise
    other = pool.find_key(request.other_key).public_key
    return unwrap_psk(pool, key, other, request.peer, request.epoch, request.sealed)
