"""`wghsm token init|list|show|doctor`."""

import dataclasses

import click
import msgspec

from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli._owner import Answer, as_owner
from wghsm.cli._recording import Deed, recording
from wghsm.cli._table import show_table
from wghsm.cli._target import Target, new_token_options, target_of, token_options
from wghsm.cli.doctor import doctor
from wghsm.cli.shapes.tokens import TokenDescribed, TokenMade
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenNotFound, TokenUri, open_pin
from wghsm.pkcs11_backend.tokens import init_token, list_tokens
from wghsm.softhsm_setup import make_token
from wghsm.wipe import wipe

__all__ = ["token"]

# The custodian's default uid in a gateway file (`users:`).
_CUSTODIAN_UID = 61100
_ID = click.IntRange(0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def token() -> None:
    """Make, list, show and examine PKCS#11 tokens."""


token.add_command(doctor)


@token.command()
@click.option("--softhsm", "directory", metavar="DIR", help="Make a SoftHSM2 token with its own store in DIR.")
@click.option("--label", metavar="LABEL", help="Label of a --softhsm token (default: gw).")
@click.option(
    "--uid",
    metavar="UID",
    type=_ID,
    help="Uid that will run the custodian; owns a --softhsm store (default: 61100 as root).",
)
@click.option("--gid", metavar="GID", type=_ID, help="Its group (default: the number of --uid).")
@click.option("--pin-source", metavar="SOURCE", help="Where a --softhsm token's PIN comes from (default: random).")
@click.option("--so-pin-source", metavar="SOURCE", help="Where the security officer's PIN comes from.")
@new_token_options
@json_option
def init(
    directory: str | None,
    label: str | None,
    uid: int | None,
    gid: int | None,
    pin_source: str | None,
    so_pin_source: str | None,
    token: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Make a new token. A token that exists is never touched.

    \b
    Examples:
      wghsm token init --softhsm /etc/wghsm/hsm --label gw
      wghsm token init --token 'pkcs11:token=gw?module-path=/usr/lib/x.so&pin-source=prompt' --so-pin-source prompt
    """
    if directory is not None:
        if token is not None or config is not None:
            raise CommandError("--softhsm makes its own URI; leave out --token and -c", ExitCode.BAD_CONFIG)
        _init_softhsm(directory, label or "gw", uid, gid, pin_source, so_pin_source, as_json=as_json)
        return
    if (label, uid, gid, pin_source) != (None, None, None, None):
        raise CommandError("--label, --uid, --gid and --pin-source go with --softhsm only", ExitCode.BAD_CONFIG)
    target = target_of(token, config)
    if so_pin_source is None:
        raise CommandError("name the security officer's PIN with --so-pin-source, e.g. prompt", ExitCode.BAD_CONFIG)
    so_pin = open_pin(so_pin_source).read("New SO PIN: ")
    pin = bytearray()
    try:
        pin = open_pin(target.uri.pin_source).read("New PIN: ")
        with recording(target.gateway, Deed("token.init", detail={"token": target.uri.describe_token()})):
            as_owner(target.uri, lambda: _init(target.uri, so_pin, pin))
    finally:
        wipe(so_pin)
        wipe(pin)
    if as_json:
        print_json(TokenMade(uri=str(target.uri)))
    else:
        click.echo(f"token {target.uri.token!r} is ready: {target.uri}")


def _init(uri: TokenUri, so_pin: bytearray, pin: bytearray) -> Answer:
    init_token(uri, so_pin, pin)
    return Answer()


def _init_softhsm(
    directory: str,
    label: str,
    uid: int | None,
    gid: int | None,
    pin_source: str | None,
    so_pin_source: str | None,
    *,
    as_json: bool,
) -> None:
    import os

    if uid is None and os.geteuid() == 0:
        uid = _CUSTODIAN_UID
    pin = so_pin = None
    try:
        if pin_source is not None:
            pin = open_pin(pin_source).read("New PIN: ")
        if so_pin_source is not None:
            so_pin = open_pin(so_pin_source).read("New SO PIN: ")
        made = make_token(directory, label=label, uid=uid, gid=gid, pin=pin, so_pin=so_pin)
    finally:
        wipe(pin)
        wipe(so_pin)
    if as_json:
        print_json(
            TokenMade(
                uri=made.uri,
                environment=made.environment,
                pin_file=str(made.pin_file),
                so_pin_file=str(made.so_pin_file),
            )
        )
        return
    click.echo(f"Token {made.label!r} is ready. SoftHSM keeps keys in files and memory: it is no HSM.")
    click.echo(f"  uri:    {made.uri}")
    click.echo(f"  PIN:    {made.pin_file}")
    click.echo(f"  SO PIN: {made.so_pin_file}")
    click.echo(f"Before other commands:  export SOFTHSM2_CONF={made.conf}")


@token.command(name="list")
@token_options
@json_option
def list_(token: str | None, config: str | None, as_json: bool) -> None:
    """List every token of the URI's module; no PIN is needed.

    Example: wghsm token list --token 'pkcs11:?module-path=/usr/lib/softhsm/libsofthsm2.so'
    """
    reports = _reports(target_of(token, config))
    if as_json:
        print_json(reports)
        return
    rows = [
        (report.label, report.serial, report.model, report.uri)
        if report.initialised
        else ("(empty)", f"slot {report.slot_id}", report.model, "")
        for report in reports
    ]
    show_table(("LABEL", "SERIAL", "MODEL", "URI"), rows)


@token.command()
@token_options
@json_option
def show(token: str | None, config: str | None, as_json: bool) -> None:
    """Show the one token that the URI names, as the token describes itself; no PIN is needed.

    Example: wghsm token show -c /etc/wghsm/wg0.yaml
    """
    target = target_of(token, config)
    uri = target.uri
    wanted = {
        "label": uri.token,
        "serial": uri.serial,
        "slot_id": uri.slot_id,
        "manufacturer": uri.manufacturer,
        "model": uri.model,
    }
    there = [report for report in _reports(target) if report.initialised]
    fitting = [r for r in there if all(want is None or getattr(r, name) == want for name, want in wanted.items())]
    if len(fitting) != 1:
        labels = ", ".join(f"{r.label!r} (serial {r.serial})" for r in (fitting or there)) or "none"
        problem = "fits several tokens" if fitting else "is not there"
        raise TokenNotFound(f"{uri.describe_token()} {problem}; there is: {labels}; correct the URI")
    report = fitting[0]
    if as_json:
        print_json(report)
        return
    for name in ("label", "serial", "slot_id", "manufacturer", "model"):
        click.echo(f"{name.replace('_', ' ') + ':':14}{getattr(report, name)}")
    click.echo(f"{'X25519:':14}{report.x25519 or 'not offered in a way that wghsm knows'}")
    click.echo(f"{'flags:':14}{', '.join(report.flags)}")
    click.echo(f"{'uri:':14}{report.uri}")


def _reports(target: Target) -> list[TokenDescribed]:
    def work() -> Answer:
        return Answer([dataclasses.asdict(report) for report in list_tokens(target.uri)])

    return msgspec.convert(as_owner(target.uri, work).data, list[TokenDescribed])
