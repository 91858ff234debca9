"""`wghsm ceremony [verify]`: keys made by several people, and what is left of it held against a token.

gateway file -> order -> journal in --out (nothing secret) -> steps at the terminal -> transcript.json, .txt, .html
transcript.json -> the tokens of today, read -> what differs -> exit status
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from wghsm.ceremony import (
    Journal,
    Order,
    compare,
    encode,
    fingerprint,
    journal_of,
    render_page,
    render_text,
    transcript_of,
)
from wghsm.cli._ceremony_run import Ceremony
from wghsm.cli._ceremony_software import software
from wghsm.cli._ceremony_token import read_back
from wghsm.cli._ceremony_tokens import Tokens
from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli._psk_file import replace_file
from wghsm.cli.shapes.audits import CeremonyDifference, CeremonyVerified
from wghsm.config import load
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenUri, open_pin
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from wghsm.ceremony import Difference, Transcript
    from wghsm.config import Gateway

__all__ = ["ceremony"]

_CUSTODIAN_UID = 61100
_JOURNAL = "ceremony.journal"


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-c", "--config", metavar="GATEWAY.yaml", type=click.Path(), help="Gateway file: tokens and labels.")
@click.option(
    "--out", metavar="DIR", type=click.Path(), help="Folder of journal and transcript (default: ceremony-NAME)."
)
@click.option("--softhsm", metavar="DIR", type=click.Path(), help="Make SoftHSM tokens, with their store in DIR.")
@click.option(
    "--copy",
    "how",
    metavar="HOW",
    default="maker",
    help="The key in further tokens: wrapped:LABEL (a common AES key), import (made outside), maker (later; default).",
)
@click.pass_context
def ceremony(context: click.Context, config: str | None, out: str | None, softhsm: str | None, how: str) -> None:
    """Make a gateway's keys with two people or more, step by step, and write a transcript to print and sign.

    What the gateway file names is made: tokens, key, PSK root, wrapping key, audit key. Every step says what will
    happen and asks. Interrupted, also by a power cut, it goes on where it was with the same command.

    \b
    Examples:
      wghsm ceremony -c /etc/wghsm/wg0.yaml --out /root/ceremony-wg0
      wghsm ceremony verify /root/ceremony-wg0/transcript.json
    """
    if context.invoked_subcommand is not None:
        return
    if config is None:
        raise CommandError("name the gateway file: -c GATEWAY.yaml", ExitCode.BAD_CONFIG)
    if not sys.stdin.isatty():
        raise CommandError("a ceremony needs a terminal to talk to people", ExitCode.BAD_CONFIG)
    gateway = load(config)
    order = _order(gateway, how)
    folder = Path(out or f"ceremony-{gateway.interface.name}").absolute()
    journal = _journal(folder, order)
    custodian = gateway.users.custodian
    uid = None if os.geteuid() != 0 else custodian if isinstance(custodian, int) else _CUSTODIAN_UID
    place = None if softhsm is None else Path(softhsm).absolute()
    try:
        with Tokens(journal, place, uid) as tokens:
            sitting = Ceremony(journal, folder / _JOURNAL, tokens, gateway)
            sitting.save()
            transcript = sitting.run()
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nThe same command goes on from here.", err=True)
        raise
    _write(folder, transcript)


def _order(gateway: Gateway, how: str) -> Order:
    if how not in ("maker", "import") and not how.removeprefix("wrapped:").strip():
        raise CommandError("--copy takes wrapped:LABEL, import or maker", ExitCode.BAD_CONFIG)
    if how not in ("maker", "import") and not how.startswith("wrapped:"):
        raise CommandError("--copy takes wrapped:LABEL, import or maker", ExitCode.BAD_CONFIG)
    return Order(
        gateway=gateway.interface.name,
        uris=list(gateway.token.in_order),
        key=gateway.interface.key,
        psk_root=gateway.token.psk_root,
        wrap_key=gateway.token.psk_wrap_key,
        audit_key=gateway.audit.key,
        copy=how,
    )


def _journal(folder: Path, order: Order) -> Journal:
    """A fresh journal, or the one of a ceremony that was interrupted. Raises CommandError and OSError."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (folder / "transcript.json").exists():
        raise CommandError(f"{folder} holds the transcript of a ceremony that is over; name another folder with --out")
    path = folder / _JOURNAL
    if not path.exists():
        return Journal(id=secrets.token_hex(16), order=order, sittings=[now])
    try:
        journal = journal_of(path.read_bytes())
    except msgspec.MsgspecError as error:
        raise CommandError(f"{path} is damaged ({error}); name another folder with --out") from None
    if journal.order != order:
        raise CommandError(
            f"the ceremony in {folder} began with other settings; take the gateway file and --copy of then, "
            "or name another folder with --out",
            ExitCode.BAD_CONFIG,
        )
    click.echo(
        f"Going on with the ceremony {journal.id}, begun {journal.sittings[0]}; {len(journal.steps)} steps are done."
    )
    journal.sittings.append(now)
    return journal


def _write(folder: Path, transcript: Transcript) -> None:
    text = encode(transcript)
    # The JSON comes last: it is what says that the ceremony is over.
    replace_file(folder / "transcript.txt", render_text(transcript))
    replace_file(folder / "transcript.html", render_page(transcript))
    replace_file(folder / "transcript.json", text)
    (folder / _JOURNAL).unlink(missing_ok=True)
    click.echo(
        f"\nThe ceremony is over. In {folder}: transcript.html to print and sign, transcript.txt, transcript.json."
    )
    click.echo(f"SHA-256 of transcript.json, also on the paper: {fingerprint(text.encode())}")
    click.echo(f"At any time: wghsm ceremony verify {folder / 'transcript.json'}")


@ceremony.command()
@click.argument("transcript", type=click.Path())
@click.option("-c", "--config", metavar="GATEWAY.yaml", type=click.Path(), help="Take the tokens' URIs from this file.")
@json_option
def verify(transcript: str, config: str | None, as_json: bool) -> int:
    """Hold TRANSCRIPT (transcript.json) against the tokens of today; nothing is written.

    Exit status: 0 if the tokens are what the transcript says, 12 if they differ. Other software, and keys that have
    come since, are told and change nothing. The SHA-256 that is printed must be the one on the signed paper.

    Example: wghsm ceremony verify /root/ceremony-wg0/transcript.json
    """
    text = Path(transcript).read_bytes()
    try:
        then = transcript_of(text)
    except msgspec.MsgspecError as error:
        raise CommandError(f"{transcript} is no transcript of a ceremony: {error}", ExitCode.BAD_CONFIG) from None
    uris = [token.uri for token in then.tokens] if config is None else list(load(config).token.in_order)
    if len(uris) != len(then.tokens):
        raise CommandError(
            f"the transcript has {len(then.tokens)} tokens, {config} has {len(uris)}", ExitCode.BAD_CONFIG
        )
    today = []
    for each in uris:
        uri = TokenUri.parse(each)
        with open_pin(uri.pin_source) as source:
            pin = source.read_for_login(f"PIN of {uri.describe_token()}: ")
        try:
            today.append(read_back(uri, pin, then.order))
        finally:
            wipe(pin)
    found = compare(then, today, software())
    broken = any(one.breaks for one in found)
    if as_json:
        differences = [msgspec.convert(one, CeremonyDifference, from_attributes=True) for one in found]
        print_json(CeremonyVerified(sha256=fingerprint(text), agrees=not broken, differences=differences))
    else:
        _show(found, fingerprint(text), broken=broken)
    return int(ExitCode.DIFFERS if broken else ExitCode.OK)


def _show(found: list[Difference], digest: str, *, broken: bool) -> None:
    click.echo(f"SHA-256 of the transcript: {digest}")
    for one in found:
        mark = click.style("differs", fg="red", bold=True) if one.breaks else click.style("changed", fg="yellow")
        click.echo(f"{mark}  {one.where}, {one.what}: then {one.then}, now {one.now}")
    click.echo(
        click.style("The tokens are not what the transcript says.", fg="red", bold=True)
        if broken
        else click.style("The tokens are what the transcript says.", fg="green")
    )
