"""Which token a command means: `--token URI`, or the one that `-c GATEWAY.yaml` names."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from wghsm.cli import _completing
from wghsm.cli._gateway_files import known_gateways, only_gateway
from wghsm.cli._output import CommandError
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenUri

if TYPE_CHECKING:
    from wghsm.config import Gateway

__all__ = ["Target", "identity_of", "label_of", "new_token_options", "target_of", "token_options"]


@dataclass(frozen=True)
class Target:
    """The token that a command works on (the first one of a gateway file), and the gateway file if one was given."""

    uri: TokenUri
    gateway: "Gateway | None"

    @property
    def uris(self) -> tuple[TokenUri, ...]:
        """Every token, best first."""
        if self.gateway is None:
            return (self.uri,)
        return tuple(TokenUri.parse(uri) for uri in self.gateway.token.in_order)


def token_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --token and -c/--config; the function gets `token: str | None` and `config: str | None`.

    Where neither is given, `config` is the only gateway file in /etc/wghsm, if there is one.
    """

    @functools.wraps(command)
    def with_default(*args: Any, token: str | None, config: str | None, **rest: Any) -> Any:
        if token is None and config is None and (only := only_gateway()) is not None:
            config = str(only)
        return command(*args, token=token, config=config, **rest)

    return new_token_options(with_default, " (default: the only one in /etc/wghsm)")


def new_token_options(command: Callable[..., Any], default: str = "") -> Callable[..., Any]:
    """As `token_options`, and one of the two must be given: for a command that makes a token."""
    command = click.option(
        "-c", "--config", metavar="GATEWAY.yaml", help=f"Gateway file that names the token{default}.", type=click.Path()
    )(command)
    return click.option(
        "--token", metavar="URI", shell_complete=_completing.tokens, help="pkcs11: URI of the token (RFC 7512)."
    )(command)


def target_of(token: str | None, config: str | None) -> Target:
    """Return what exactly one of the two options names. Raises CommandError, UriError, ConfigError."""
    if (token is None) == (config is None):
        there = f"; {known_gateways()}" if token is None else ", not both"
        raise CommandError(f"name the token: either --token URI or -c GATEWAY.yaml{there}", ExitCode.BAD_CONFIG)
    if token is not None:
        return Target(TokenUri.parse(token), None)
    from wghsm.config import load

    gateway = load(str(config))
    return Target(TokenUri.parse(gateway.token.uri), gateway)


def identity_of(text: str | None) -> bytes | None:
    """Return the CKA_ID that --id gives in hex; None without it. Raises CommandError."""
    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError:
        raise CommandError("--id takes hex digits, as the list commands show them", ExitCode.BAD_CONFIG) from None


def label_of(target: Target, label: str | None) -> str:
    """Return the key label meant: the argument, the URI's object, the gateway's key. Raises CommandError."""
    if label is not None:
        return label
    if target.uri.object is not None:
        return target.uri.object
    if target.gateway is not None:
        return target.gateway.interface.key
    raise CommandError("name the key: give its LABEL", ExitCode.BAD_CONFIG)
