"""What a shell may put where a name is wanted: of peers, keys, tokens and others. Called by click while one types.

The names come from gateway files: the one of `-c`, else all of /etc/wghsm; no token is asked, since that would take a
PIN. A file that cannot be read gives no names, and nothing is ever printed.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from ._admin import running_gateways
from ._gateway_files import gateway_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wghsm.config import Gateway

__all__ = ["commands", "files", "gateways", "keys", "peers", "secrets", "tags", "targets", "tokens"]


def peers(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of peers."""
    return _fitting((peer.name for gateway in _gateways(ctx) for peer in gateway.peers), incomplete)


def keys(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Labels of keys that gateway files name."""
    labels = (
        label
        for gateway in _gateways(ctx)
        for label in (
            gateway.interface.key,
            gateway.interface.previous_key,
            gateway.token.psk_root,
            gateway.token.psk_wrap_key,
            gateway.audit.key,
        )
    )
    return _fitting(labels, incomplete)


def secrets(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Labels of roots and PSK objects that gateway files name."""
    roots = (label for gateway in _gateways(ctx) for label in (gateway.token.psk_root, gateway.token.psk_wrap_key))
    peers = (peer for gateway in _gateways(ctx) for peer in gateway.peers)
    return _fitting((*roots, *(getattr(peer.preshared_key, "label", None) for peer in peers)), incomplete)


def tags(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Tags of peers."""
    return _fitting((tag for gateway in _gateways(ctx) for peer in gateway.peers for tag in peer.tags), incomplete)


def tokens(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """URIs of tokens that gateway files name."""
    uris = [uri for gateway in _gateways(ctx) for uri in gateway.token.in_order]
    if os.environ.get("_WGHSM_COMPLETE") == "bash_complete":
        # Bash puts it on the line as it is, where ? and & are the shell's own.
        uris = [shlex.quote(uri) for uri in uris]
    return _fitting(uris, incomplete)


def commands(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The commands below those that are there already."""
    group: click.Command | None = ctx.find_root().command
    for word in ctx.params.get(param.name or "") or ():
        group = group.get_command(ctx, word) if isinstance(group, click.Group) else None
    return _fitting(group.list_commands(ctx), incomplete) if isinstance(group, click.Group) else []


def gateways(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of running gateways."""
    return _fitting(running_gateways(), incomplete)


def targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of running gateways, and files."""
    return _or_files(gateways(ctx, param, incomplete), incomplete)


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of gateways that have a file, and files."""
    return _or_files(_fitting((file.stem for file in gateway_files()), incomplete), incomplete)


def _or_files(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


def _gateways(ctx: click.Context) -> Iterator[Gateway]:
    # Not at the top: every command that names a peer would wait for it.
    from wghsm.config import ConfigError, load

    said = ctx.params.get("config")
    named = [said] if isinstance(said, str) else list(said or ())
    for file in named or map(str, gateway_files()):
        with contextlib.suppress(ConfigError, OSError):
            yield load(file)


def _fitting(names: Iterable[str | None], incomplete: str) -> list[str]:
    return sorted({name for name in names if name and name.startswith(incomplete)})
