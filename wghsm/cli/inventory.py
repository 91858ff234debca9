"""`wghsm inventory`: every key and pre-shared key of the configured tokens, its age, its use, and what is due.

gateway files -> each token once, read-only -> reports --+
state files, exports, running gateways -> notes ---------+-> wghsm.inventory -> table | JSON | metrics
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from wghsm.audit import decode
from wghsm.audit.files import list_files
from wghsm.cli._admin import status_if_running
from wghsm.cli._gateway_files import FOLDER, gateway_files
from wghsm.cli._key_report import plain_report
from wghsm.cli._output import CommandError, json_option, named, print_json, print_schema
from wghsm.cli._owner import Answer, on_token
from wghsm.cli._psk_file import EXPORTS_WITHOUT_GATEWAY, Exports, current
from wghsm.cli._table import counted, show_table
from wghsm.config import ConfigError, Gateway, PskWrapped, load, read_wrapped
from wghsm.exits import ExitCode
from wghsm.inventory import (
    Asked,
    Inventory,
    Item,
    Known,
    Notes,
    Seen,
    build,
    json_schema,
    notes_of_exports,
    notes_of_log,
    notes_of_state,
    write_metrics,
)
from wghsm.pkcs11_backend import TokenError, TokenUri
from wghsm.pkcs11_backend.provision import list_keys, list_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wghsm.audit import Record
    from wghsm.pkcs11_backend import TokenPool

__all__ = ["inventory"]

_DAY = 86_400
_NEWEST = 64 << 20
_COLOURS = {"due": "red", "missing": "red", "age-unknown": "yellow", "unused": "yellow", "ok": "green"}


@click.command(
    epilog="Exit codes: 0: nothing is due; 11: something has reached its greatest age; 4: a token lacks what a file "
    "names, or could not be asked."
)
@click.option(
    "-c",
    "--config",
    "files",
    multiple=True,
    metavar="GATEWAY.yaml",
    type=click.Path(),
    help="Gateway file; repeatable.",
)
@click.option("--prometheus", metavar="FILE", type=click.Path(), help="Write metrics for a textfile collector as well.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of --json, and end.")
@json_option
def inventory(files: tuple[str, ...], prometheus: str | None, schema: bool, as_json: bool) -> int:
    """List every key and pre-shared key of the configured tokens; nothing is written, each PIN is sent once.

    Without -c: of every gateway file in /etc/wghsm. Greatest ages stand in the files: policy.key_max_age and
    policy.psk_max_age.

    \b
    Examples:
      wghsm inventory
      wghsm inventory -c /etc/wghsm/wg0.yaml --prometheus /var/lib/prometheus/node-exporter/wghsm.prom
    """
    if schema:
        print_schema(json_schema())
        return int(ExitCode.OK)
    import time

    known = [_known(load(name)) for name in files or _found()]
    asked = [_ask(uri) for uri in dict.fromkeys(uri for one in known for uri in one.uris)]
    found = build(known, asked, time.time())
    if prometheus is not None:
        with named(prometheus):
            write_metrics(found, Path(prometheus))
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found.missing or any(token.error for token in asked):
        return int(ExitCode.TOKEN_UNUSABLE)
    return int(ExitCode.ROTATION_DUE if found.due else ExitCode.OK)


def _found() -> list[str]:
    names = [str(path) for path in gateway_files()]
    if not names:
        raise CommandError(f"no gateway file in {FOLDER}; name one with -c GATEWAY.yaml", ExitCode.BAD_CONFIG)
    return names


def _known(gateway: Gateway) -> Known:
    notes = Notes()
    notes_of_state(gateway.state_directory / "custodian", notes)
    for exports in (Exports.of(gateway.state_directory), Exports(EXPORTS_WITHOUT_GATEWAY)):
        try:
            notes_of_exports(current(exports.all()), notes)
        except OSError as error:
            click.echo(f"warning: {exports.path}: {error.strerror}; its records are left out", err=True)
    if gateway.audit.enabled:
        notes_of_log(_newest_records(gateway.audit.directory), notes)
    _hear(gateway.interface.name, notes)
    epochs: dict[str, int] = {}
    for peer in gateway.peers:
        if isinstance(peer.preshared_key, PskWrapped):
            try:
                epochs[str(peer.preshared_key.file)] = read_wrapped(peer.preshared_key.file)[0][0]
            except ConfigError as error:
                click.echo(f"warning: {error}", err=True)
    return Known(gateway, gateway.token.in_order, notes, epochs)


def _newest_records(folder: Path) -> Iterator[Record]:
    """The records in the newest files of the gateway's log, of some 64 MiB together: the last uses are there."""
    left = _NEWEST
    if not folder.is_dir():
        return
    for file in reversed(list_files(folder).get("gateway", [])):
        try:
            left -= file.path.stat().st_size
            with file.path.open("rb") as lines:
                for line in lines:
                    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                        yield decode(line)
        except OSError as error:
            click.echo(f"warning: {file.path}: {error.strerror}; its records are left out", err=True)
        if left <= 0:
            return


def _hear(name: str, notes: Notes) -> None:
    """What the gateway of that name says, if it runs."""
    try:
        status = status_if_running(name)
    except CommandError as error:
        click.echo(f"warning: {error}", err=True)
        return
    for peer in () if status is None else status.peers:
        if peer.latest_handshake is not None:
            own = None if peer.gateway_key is None else base64.b64decode(peer.gateway_key)
            notes.saw_peer(base64.b64decode(peer.public_key), own, Seen(peer.latest_handshake, "running gateway"))


def _ask(text: str) -> Asked:
    uri = TokenUri.parse(text)

    def work(pool: TokenPool) -> Answer:
        keys = [{**plain_report(report), "made": report.made} for report in list_keys(pool)]
        return Answer([pool.token_name, keys, [dataclasses.asdict(report) for report in list_secrets(pool)]])

    try:
        answer = on_token(uri, work)
    except (TokenError, CommandError) as error:
        click.echo(f"warning: {error}", err=True)
        return Asked(text, uri.describe_token(), error=str(error))
    if not isinstance(answer.data, list):
        raise CommandError("the token work gave no report")
    name, keys, secrets = answer.data
    return Asked(text, str(name).removeprefix("token "), keys, secrets)


def _show(found: Inventory) -> None:
    from rich.text import Text

    several = len(found.tokens) > 1
    rows = [
        (
            item.label,
            *((item.token,) if several else ()),
            item.kind,
            item.origin,
            "unknown" if item.age is None else f"{_span(item.age)} ({item.made_from})",
            "unknown" if item.last_used is None else f"{item.last_used[:10]} ({item.last_used_from})",
            _users(item),
            Text(_rotation(item), style=_COLOURS.get(item.rotation, "")),
        )
        for item in found.items
    ]
    where = ("TOKEN",) if several else ()
    show_table(("LABEL", *where, "KIND", "ORIGIN", "AGE", "LAST USED", "USED BY", "ROTATION"), rows)
    for line in _summary(found):
        click.echo(line)


def _users(item: Item) -> str:
    roles = ", ".join(item.roles) or "nobody"
    return f"{roles}, {counted(len(item.peers), 'peer')}" if item.kind != "psk" and item.peers else roles


def _rotation(item: Item) -> str:
    match item.rotation:
        case "due":
            return f"DUE since {str(item.due)[:10]}"
        case "ok":
            return f"due {str(item.due)[:10]}"
        case "age-unknown":
            return "has a limit, age unknown"
        case "missing":
            return "MISSING"
        case "unused":
            return "not used by any file"
        case _:
            return "no limit"


def _summary(found: Inventory) -> Iterator[str]:
    yield f"{counted(len(found.items), 'item')}, {found.due} due, {found.age_unknown} with a limit but of unknown age"
    if found.missing:
        yield f"{found.missing} named by a gateway file and not in their token"
    if found.peers_without_psk:
        yield f"without a pre-shared key: {_first(found.peers_without_psk)}"


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _span(seconds: int) -> str:
    if seconds >= 2 * _DAY:
        return f"{seconds // _DAY} days"
    return f"{seconds // 3600} h" if seconds >= 7200 else f"{seconds // 60} min"
