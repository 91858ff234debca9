"""Options that commands share: which gateway file, how a moment is given, whether to reload."""

import contextlib
import ipaddress
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wghsm.cli._output import CommandError
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from wghsm.config import Endpoint

__all__ = [
    "config_option",
    "endpoint_of",
    "gateway_file",
    "gateway_path",
    "known_gateways",
    "moment_text",
    "names_a_file",
    "only_gateway",
    "reload_option",
]

_FOLDER = Path("/etc/wghsm")
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


def gateway_path(config: str | None) -> Path:
    """The gateway file that is meant. Raises CommandError."""
    if config is not None:
        return Path(config)
    only = only_gateway()
    if only is None:
        raise CommandError(f"name the gateway file: -c GATEWAY.yaml; {known_gateways()}", ExitCode.BAD_CONFIG)
    return only


def names_a_file(target: str) -> bool:
    """Whether FILE|NAME is the path of a file, not a gateway's name."""
    return "/" in target or target.endswith((".yaml", ".yml")) or Path(target).is_file()


def gateway_file(target: str) -> Path:
    """The gateway file that FILE|NAME means: that file, or NAME.yaml in /etc/wghsm. Raises CommandError."""
    if names_a_file(target):
        return Path(target)
    file = _FOLDER / f"{target}.yaml"
    if not file.is_file():
        raise CommandError(
            f"no gateway file for {target!r}: looked for {file}, and for a file {target!r} here; {known_gateways()}",
            ExitCode.BAD_CONFIG,
        )
    return file


def only_gateway() -> Path | None:
    """The gateway file that is meant where none is named: the only one in /etc/wghsm."""
    found = list(_FOLDER.glob("*.yaml"))
    return found[0] if len(found) == 1 else None


def known_gateways() -> str:
    """What /etc/wghsm has, in words."""
    found = sorted(_FOLDER.glob("*.yaml"))
    return f"there is: {', '.join(map(str, found))}" if found else f"there is none in {_FOLDER}"


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
