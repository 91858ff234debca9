"""Options that the `peer` commands and others share: which gateway file, how a moment is given, whether to reload."""

import contextlib
import ipaddress
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from wghsm.cli._output import CommandError
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from wghsm.config import Endpoint

__all__ = [
    "config_option",
    "endpoint_of",
    "moment_text",
    "reload_option",
]

_UNITS = {"d": "days", "h": "hours", "m": "minutes"}
_MOMENTS = "2027-03-31, 2027-03-31T18:00Z, 30d, 12h or 90m from now, now or never"


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add -c/--config; the function gets `config: str | None`."""
    return click.option(
        "-c",
        "--config",
        metavar="GATEWAY.yaml",
        type=click.Path(),
        help="Gateway file (default: the only one in /etc/wghsm).",
    )(command)


def reload_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --no-reload; the function gets `reload: bool`."""
    return click.option(
        "--no-reload", "reload", is_flag=True, flag_value=False, default=True, help="Leave the running gateway alone."
    )(command)


def endpoint_of(text: str, port: int) -> "Endpoint":
    """HOST:PORT, or HOST with the gateway's own port (0: it has none). Raises CommandError."""
    from pydantic import ValidationError

    from wghsm.config import Clients

    with contextlib.suppress(ValueError):
        text = f"[{ipaddress.IPv6Address(text)}]"
    for each in (text, f"{text}:{port}"):
        with contextlib.suppress(ValidationError):
            found = Clients.model_validate({"endpoint": each}).endpoint
            if found is not None:
                return found
    raise CommandError(
        f"--endpoint takes HOST:PORT, such as vpn.example.org:{port or 51820}; without :PORT it is the listen_port",
        ExitCode.BAD_CONFIG,
    )


def moment_text(wanted: str, now: datetime | None = None) -> str | None:
    """A moment as the gateway file writes it: a day or a moment as it is, `30d`, `12h`, `90m` from now, None for never.

    The file's reader checks what is given as it is. Raises CommandError.
    """
    if wanted == "never":
        return None
    now = now or datetime.now(UTC)
    if wanted == "now":
        return f"{now:%Y-%m-%dT%H:%M:%SZ}"
    found = re.fullmatch(r"\+?([0-9]{1,6})([dhm])", wanted)
    if found:
        try:
            return f"{now + timedelta(**{_UNITS[found[2]]: int(found[1])}):%Y-%m-%dT%H:%M:%SZ}"
        except OverflowError:
            raise CommandError(f"{wanted} is after the year 9999; write never", ExitCode.BAD_CONFIG) from None
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:]{5,8}Z)?", wanted):
        raise CommandError(f"{wanted!r} is no moment; write {_MOMENTS}", ExitCode.BAD_CONFIG)
    return wanted
