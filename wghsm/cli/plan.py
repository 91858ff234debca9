"""`wghsm plan FILE|NAME`: what a reload would change in the running gateway, and what has drifted from its file.

FILE -> load            admin socket -> what is loaded, what runs
          |                                  |
          +---- config.plan(runs, FILE) -----+---- less config.plan(loaded, FILE): drift
"""

from __future__ import annotations

import base64
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wghsm import config
from wghsm.cli import _completing
from wghsm.exits import ExitCode
from wghsm.ipc.admin import AdminRequest

from ._admin import NotRunningError, ask, gateway_with
from ._gateway_files import names_a_file
from ._output import CommandError, json_option, print_json
from ._table import counted
from .shapes.gateways import Planned, PlannedChange, PlannedRoute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wghsm.ipc.admin import Config

__all__ = ["plan"]

_NEEDS = {
    config.Effect.LIVE: "",
    config.Effect.CUSTODIAN: "  (the custodian is started again; sessions go on)",
    config.Effect.RESTART: "  (needs a restart of the gateway)",
}


@click.command(
    epilog="Examples: `wghsm plan wg0`, `wghsm plan /etc/wghsm/wg0.yaml`. Exit codes: 0: nothing would change; 9: a "
    "reload would change something; 10: something has changed that needs a restart; 2: the file is bad; 6: the gateway "
    "is not running."
)
@click.argument("target", metavar="FILE|NAME", shell_complete=_completing.targets)
@json_option
def plan(target: str, as_json: bool) -> int:
    """Show what a reload of FILE, or of the file that the gateway NAME runs, would change; change nothing.

    What was changed at run time, as with `wg set`, is marked as drift: a reload takes it back, unless the file says
    authority: runtime.
    """
    if names_a_file(target):
        after = _load(target)
        name, running = _running(after.interface.name, target)
    else:
        name, running = _running(target)
        after = _load(running.file)
    wrapped_after = config.read_wrapped_files(after)
    loaded = config.from_document(running.loaded)
    wrapped = {
        Path(path): [(epoch, base64.b64decode(sealed)) for epoch, sealed in entries]
        for path, entries in running.wrapped.items()
    }
    in_file = config.plan(loaded, after, wrapped, wrapped_after, time.time())
    if loaded.interface.authority == "runtime":
        made, drift = in_file, frozenset[tuple[str, bytes]]()
    else:
        made = config.plan(config.from_document(running.running), after, wrapped, wrapped_after, time.time())
        said = {(change.field, change.peer) for change in in_file.changes}
        drift = frozenset(pair for each in made.changes if (pair := (each.field, each.peer)) not in said)
    if as_json:
        print_json(_shape(name, running, made, drift))
    else:
        for line in _lines(name, running, made, drift):
            click.echo(line)
    if not made.changes and not running.login_is_due:
        return int(ExitCode.OK)
    return int(ExitCode.NEEDS_RESTART if made.needing(config.Effect.RESTART) else ExitCode.WOULD_CHANGE)


def _load(file: str) -> config.Gateway:
    return config.load(file, warn=lambda problem: click.echo(f"warning: {problem}", err=True))


def _running(name: str, file: str = "") -> tuple[str, Config]:
    """The running gateway of that name, or else the one of that file, with its settings. Raises CommandError."""
    with contextlib.suppress(NotRunningError):
        return name, _config(name)
    other = gateway_with(file) if file else None
    if other is None:
        text = f"no gateway {name!r} is running; start it with: wghsm up {file or name}"
        raise CommandError(text, ExitCode.NOT_RUNNING)
    return other, _config(other)


def _config(gateway: str) -> Config:
    found = ask(gateway, AdminRequest(verb="config")).config
    if found is None:
        raise CommandError(f"gateway {gateway!r} gave no configuration")
    return found


def _shape(name: str, running: Config, made: config.Plan, drift: frozenset[tuple[str, bytes]]) -> Planned:
    return Planned(
        gateway=name,
        file=running.file,
        changes=[
            PlannedChange(
                field=change.field,
                peer=config.written(change.peer) if change.peer else None,
                name=change.name or None,
                before=_value(change.field, change.before),
                after=_value(change.field, change.after),
                effect=change.effect.value,
                drift=(change.field, change.peer) in drift,
            )
            for change in made.changes
        ],
        routes_added=[PlannedRoute(prefix=str(prefix), table=table) for prefix, table in made.routes_added],
        routes_removed=[PlannedRoute(prefix=str(prefix), table=table) for prefix, table in made.routes_removed],
        path_mtu=running.path_mtu,
        login_is_due=running.login_is_due,
    )


def _value(field: str, value: Any) -> Any:
    """One value for people and for JSON; of wrapped PSKs their epochs only."""
    if field == "wrapped":
        return [epoch for epoch, _ in value]
    return config.written(value)


def _lines(name: str, running: Config, made: config.Plan, drift: frozenset[tuple[str, bytes]]) -> Iterator[str]:
    if not made.changes and not running.login_is_due:
        yield f"{name}: nothing would change ({running.file})"
        return
    yield click.style(f"{name}: a reload of {running.file} would change", bold=True)
    if running.login_is_due:
        text = "~ the file of the token's PIN has changed: a new login at the token"
        yield click.style(text, fg="yellow") + _NEEDS[config.Effect.CUSTODIAN]
    for change in made.changes:
        if change.field == "interface.mtu":
            yield from _field(change, drift, indent="", auto=f"auto ({running.path_mtu} now)")
        elif not change.peer:
            yield from _field(change, drift, indent="")
    for sign, colour, routes in (("+", "green", made.routes_added), ("-", "red", made.routes_removed)):
        for prefix, table in routes:
            yield click.style(f"{sign} route {prefix} in table {table}", fg=colour)
    before = b""
    for change in made.changes:
        if not change.peer:
            continue
        who = f"peer {change.name} ({config.written(change.peer)})"
        mark = _mark(change, drift)
        if change.field:
            if change.peer != before:
                yield click.style(f"~ {who}", fg="yellow")
            yield from _field(change, drift, indent="    ")
        elif change.after is None:
            yield click.style(f"- {who}", fg="red") + mark
        else:
            yield click.style(f"+ {who}", fg="green") + mark
            yield from _whole(change.after)
        before = change.peer
    yield _total(made, len(drift), login_is_due=running.login_is_due)


def _field(
    change: config.Change, drift: frozenset[tuple[str, bytes]], indent: str, auto: str = "auto"
) -> Iterator[str]:
    """One setting; `auto`: what is said in place of that word."""
    was, will_be = _value(change.field, change.before), _value(change.field, change.after)
    mark = f"{_NEEDS[change.effect]}{_mark(change, drift)}"
    if change.field.rpartition(".")[2] in ("allowed_ips", "addresses"):
        for sign, colour, some in (
            ("+", "green", [each for each in will_be if each not in was]),
            ("-", "red", [each for each in was if each not in will_be]),
        ):
            for each in some:
                yield indent + click.style(f"{sign} {change.field} {each}", fg=colour) + mark
        return
    before, after = (auto if value == "auto" else _text(change.field, value) for value in (was, will_be))
    yield indent + click.style(f"~ {change.field}: {before} -> {after}", fg="yellow") + mark


def _whole(peer: config.Peer) -> Iterator[str]:
    for field in type(peer).model_fields:
        value = getattr(peer, field)
        if field not in ("name", "public_key") and value not in (None, 0, False, (), ""):
            yield "    " + click.style(f"{field}: {_text(field, config.written(value))}", fg="green")


def _text(field: str, value: Any) -> str:
    """A value as people know it from the gateway file."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(" ".join(each) if isinstance(each, list) else str(each) for each in value)
    return config.limit_text(field, value) if field in ("rate_limit", "quota") else str(value)


def _mark(change: config.Change, drift: frozenset[tuple[str, bytes]]) -> str:
    return "  (drift: changed at run time)" if (change.field, change.peer) in drift else ""


def _total(made: config.Plan, drifted: int, *, login_is_due: bool) -> str:
    counts: Iterable[tuple[int, str]] = (
        (len(made.peers("added")), "to add"),
        (len(made.peers("removed")), "to remove"),
        (len(made.peers("changed")), "to change"),
    )
    said = [f"{counted(count, 'peer')} {what}" for count, what in counts if count]
    settings = sum(not change.peer for change in made.changes)
    said += [f"{counted(settings, 'setting')} to change"] if settings else []
    said += ["a new login"] if login_is_due else []
    said += [f"{drifted} of it drift"] if drifted else []
    said += ["a restart is needed"] if made.needing(config.Effect.RESTART) else []
    return "plan: " + ", ".join(said)
