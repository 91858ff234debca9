"""`wghsm audit show` and `wghsm audit schema`: records for people and for programs."""

import time
from datetime import UTC, datetime

import click

from wghsm import audit
from wghsm.audit import KINDS, LogReader, Record, Wanted, rfc3339
from wghsm.cli import _completing
from wghsm.cli._audit_folder import Folder, folder_of, folder_options, moment
from wghsm.cli._output import print_schema

__all__ = ["schema", "show"]

_PAUSE = 0.5


@click.command()
@folder_options
@click.option(
    "--peer",
    metavar="PEER",
    shell_complete=_completing.peers,
    help="A public key or its beginning; with -c a peer's name too.",
)
@click.option(
    "--key",
    metavar="KEY",
    shell_complete=_completing.keys,
    help="A label, a public key or a fingerprint, or its beginning.",
)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="May be given again.")
@click.option("--since", metavar="TIME", help="From this time on: 2026-01-31T10:00 (UTC), or how long ago: 2h, 7d.")
@click.option("--until", metavar="TIME", help="Up to this time.")
@click.option("--log", type=click.Choice(["gateway", "commands"]), help="Only this log.")
@click.option("--failures", is_flag=True, help="Only what did not succeed.")
@click.option("-f", "--follow", is_flag=True, help="Go on with records as they come, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as they are: one JSON document a line.")
def show(
    folder: str | None,
    config: str | None,
    peer: str | None,
    key: str | None,
    kinds: tuple[str, ...],
    since: str | None,
    until: str | None,
    log: str | None,
    failures: bool,
    follow: bool,
    as_json: bool,
) -> None:
    """Show the records of an audit log, in the order of their time. It verifies nothing: wghsm audit verify does.

    \b
    Examples:
      wghsm audit show -c /etc/wghsm/wg0.yaml --peer alice --since 7d
      wghsm audit show /var/log/wghsm/wg0 --kind psk.export --kind key.change --json
      wghsm audit show -c /etc/wghsm/wg0.yaml --failures -f
    """
    meant = folder_of(folder, config)
    now = datetime.now(UTC)
    wanted = Wanted(
        peer=_public_key(meant, peer),
        key=key or "",
        kinds=frozenset(kinds),
        since=_time(moment(since, now)),
        until=_time(moment(until, now)),
        failures=failures,
    )
    reader = LogReader(meant.path, log)
    names = _names(meant)
    while True:
        for line, record in reader.new():
            if wanted.fits(record):
                click.echo(line.decode("ascii", "backslashreplace") if as_json else _words(record, names))
        if not follow:
            break
        time.sleep(_PAUSE)
    if reader.unreadable:
        click.echo(f"{reader.unreadable} lines are no records: wghsm audit verify says which", err=True)


@click.command()
def schema() -> None:
    """Print the JSON Schema of a record of the audit log.

    Example: wghsm audit schema > audit-record.schema.json
    """
    print_schema(audit.json_schema())


def _public_key(meant: Folder, peer: str | None) -> str:
    return {name: key for key, name in _names(meant).items()}.get(peer or "", peer or "")


def _names(meant: Folder) -> dict[str, str]:
    """The peers' names by public key."""
    import base64

    if meant.gateway is None:
        return {}
    return {base64.b64encode(peer.public_key).decode("ascii"): peer.name for peer in meant.gateway.peers if peer.name}


def _time(when: datetime | None) -> str:
    return "" if when is None else rfc3339(int(when.timestamp() * 1_000_000))


def _words(record: Record, names: dict[str, str]) -> str:
    log = record.stream.split("/")[1]
    parts = [record.time, f"{log}:{record.seq}", record.kind, record.operation, record.result]
    if record.peer:
        name = names.get(record.peer)
        parts.append(f"peer={record.peer}" + (f" ({name})" if name else ""))
    parts += [f"{name}={value}" for name in ("key", "token") if (value := getattr(record, name))]
    if record.latency_us is not None:
        parts.append(f"latency={record.latency_us / 1000:.3f}ms")
    if record.who is not None:
        parts.append(f"uid={record.who.uid}" + (f" pid={record.who.pid}" if record.who.pid is not None else ""))
    if record.kind != "checkpoint":
        parts += [f"{name}={value}" for name, value in record.detail.items()]
    else:
        parts.append(f"seals={record.detail.get('seq')}")
    # What strangers named must not move the terminal's cursor.
    return "".join(letter if letter.isprintable() else "?" for letter in "  ".join(parts))
