"""Which audit log a command means: FOLDER, or the one of `-c GATEWAY.yaml`; and times as an operator gives them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wghsm.cli._gateway_files import gateway_path
from wghsm.cli._output import CommandError
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from wghsm.config import Gateway

__all__ = ["Folder", "duration", "folder_of", "folder_options", "moment"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Folder:
    """The folder, and the gateway file if one was given."""

    path: Path
    gateway: "Gateway | None"


def folder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add FOLDER and -c/--config; the function gets `folder: str | None` and `config: str | None`."""
    command = click.option(
        "-c",
        "--config",
        metavar="GATEWAY.yaml",
        help="Gateway file that names the folder (default: the only one in /etc/wghsm).",
        type=click.Path(),
    )(command)
    return click.argument("folder", required=False, type=click.Path())(command)


def folder_of(folder: str | None, config: str | None) -> Folder:
    """Return what the two name; neither: the log of the only gateway file. Raises CommandError, ConfigError."""
    if folder is None:
        try:
            config = str(gateway_path(config))
        except CommandError as error:
            raise CommandError(f"name the log, by its FOLDER or a gateway file; {error}", ExitCode.BAD_CONFIG) from None
    gateway = None
    if config is not None:
        from wghsm.config import load

        gateway = load(config)
    path = Path(folder) if folder is not None else gateway.audit.directory if gateway is not None else Path()
    if not path.is_dir():
        raise CommandError(f"{path} is no folder; the audit log is where audit.directory of the gateway file says")
    return Folder(path, gateway)


def duration(text: str) -> timedelta:
    """`30s`, `5m`, `2h`, `7d`. Raises CommandError."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text, re.ASCII)
    if found is None:
        raise CommandError(f"{text!r} is no time span; write a number and s, m, h or d: 5m", ExitCode.BAD_CONFIG)
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def moment(text: str | None, now: datetime) -> datetime | None:
    """A time in ISO 8601 (UTC where it says no zone), or how long ago it was. Raises CommandError."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9]+[smhd]", text, re.ASCII):
        return now - duration(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"{text!r} is no time; write it as 2026-01-31T10:00, or as how long ago: 2h", ExitCode.BAD_CONFIG
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
