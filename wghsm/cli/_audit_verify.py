"""`wghsm audit verify`: is the log what was written? Needs files, public keys and an anchor; no token, no network."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from wghsm import audit
from wghsm.cli._audit_folder import duration, folder_of, folder_options
from wghsm.cli._output import CommandError, json_option, print_json
from wghsm.cli.shapes.audits import LogsVerified
from wghsm.exits import ExitCode

__all__ = ["verify"]

_WORDS = {
    "proved": "as it was written",
    "unproved": "in order, but nothing proves it",
    "broken": "NOT as it was written",
}
_EXITS = {"proved": ExitCode.OK, "unproved": ExitCode.UNPROVED, "broken": ExitCode.FAILURE}
_SHOWN = 20


@click.command()
@folder_options
@click.option(
    "--key",
    "keys",
    metavar="FILE",
    multiple=True,
    help="Public audit key in PEM; may be given again.",
    type=click.Path(),
)
@click.option(
    "--anchor",
    "anchors",
    metavar="FILE",
    multiple=True,
    help="What a syslog server or the journal holds; - is standard input; may be given again.",
    type=click.Path(),
)
@click.option("--gateway", metavar="NAME", help="Whose log it must be (default: that of the gateway file).")
@click.option("--max-age", metavar="SPAN", help="How old the newest checkpoint may be, e.g. 5m, at a running gateway.")
@click.option("--every-signature", is_flag=True, help="Check all of them, not only the newest that settle the rest.")
@json_option
def verify(
    folder: str | None,
    config: str | None,
    keys: tuple[str, ...],
    anchors: tuple[str, ...],
    gateway: str | None,
    max_age: str | None,
    every_signature: bool,
    as_json: bool,
) -> ExitCode:
    """Verify an audit log: find what was changed, and say up to where its history is proved.

    FOLDER may be a copy on another machine: no token is asked, only the public key (wghsm audit key public), the files,
    and an anchor if there is one. Without an anchor nobody can tell that the newest records were cut off with all that
    tells of them.

    Exit code 1: it is not as it was written. Exit code 13: it is in order, but no checkpoint of a given key proves it.

    \b
    Examples:
      wghsm audit verify -c /etc/wghsm/wg0.yaml --key audit.pem
      wghsm audit verify ./copied --key audit.pem --anchor syslog.log
      journalctl -o cat -t wghsm-audit | wghsm audit verify ./copied --key audit.pem --anchor -
    """
    meant = folder_of(folder, config)
    name = gateway or (meant.gateway.interface.name if meant.gateway is not None else None)
    oldest = None
    if max_age is not None:
        oldest = int((datetime.now(UTC) - duration(max_age)).timestamp() * 1_000_000)
    trusted = [_public_key(Path(each)) for each in keys]
    anchor = audit.read_anchor(_lines(anchors)) if anchors else None
    with _progress() as progress:
        report = audit.verify(
            meant.path,
            trusted,
            anchor=anchor,
            gateway=name,
            oldest=oldest,
            every_signature=every_signature,
            progress=progress,
        )
    if as_json:
        print_json(msgspec.convert(report, LogsVerified, from_attributes=True))
    else:
        for line in _words(meant.path, report, anchored=anchor is not None):
            click.echo(line)
    return _EXITS[report.verdict]


def _public_key(path: Path) -> audit.PublicKey:
    try:
        return audit.PublicKey(path.read_bytes())
    except ValueError as fault:
        raise CommandError(f"{path}: {fault}; wghsm audit key public prints it", ExitCode.BAD_CONFIG) from None


def _lines(names: tuple[str, ...]) -> Iterator[bytes]:
    for name in names:
        if name == "-":
            yield from sys.stdin.buffer
        else:
            file: BinaryIO
            with Path(name).open("rb") as file:
                yield from file


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error where that is a terminal. It has no thread of its own: verify forks."""
    if not sys.stderr.isatty():
        yield lambda _done, _all: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    bar = Progress(
        "verifying", BarColumn(), DownloadColumn(), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True, auto_refresh=False,
    )  # fmt: skip
    with bar:
        task = bar.add_task("verify")
        yield lambda done, everything: bar.update(task, completed=done, total=everything, refresh=True)


def _words(folder: Path, report: audit.Report, *, anchored: bool) -> Iterator[str]:
    for log in report.logs:
        yield f"{folder}, log {log.log}: {_WORDS[log.verdict]}"
        if log.records:
            yield f"  stream:    {log.stream}"
            files = f"{log.files} file{'s' if log.files != 1 else ''}"
            yield f"  records:   {log.first} to {log.last} in {files}, {log.first_time} to {log.last_time}"
            if log.proved_to is not None:
                yield f"  proved:    up to record {log.proved_to}, sealed at {log.proved_time} by key {log.signed_by}"
            else:
                yield "  proved:    nothing"
            count = f"{log.unsealed} record{'s' if log.unsealed != 1 else ''}"
            sealed = ", the checkpoint itself among them" if log.proved_to is not None else ""
            yield f"  unsealed:  {count}{sealed}"
            if anchored:
                to = f", the last is {log.anchored_to}" if log.anchored_to is not None else ""
                yield f"  anchored:  {log.anchored} of these records{to}"
        yield from _problems(log.problems, log.problem_count)
        yield from (f"  note:      {note}" for note in log.notes)
    yield from _problems(report.problems, len(report.problems))
    yield from (f"  note:      {note}" for note in report.notes)
    if report.verdict == "proved" and not anchored:
        yield "Without an anchor nobody can tell whether newer records were cut off; see docs/audit.md."


def _problems(problems: list[audit.Problem], count: int) -> Iterator[str]:
    for problem in problems[:_SHOWN]:
        where = f"{problem.file}:{problem.line}: " if problem.file else ""
        yield f"  PROBLEM:   {where}{problem.text}"
    if count > min(len(problems), _SHOWN):
        yield f"  and {count - min(len(problems), _SHOWN)} problems more"
