"""What a shell may put where a name is wanted: of peers, of keys, of gateways. Called by click while a line is typed.

The names come from gateway files: the one of `-c`, else all of /etc/wghsm; no token is asked, since that would take a
PIN. A file that cannot be read gives no names, and nothing is ever printed.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from ._admin import running_gateways

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import click

    from wghsm.config import Gateway

__all__ = ["gateways", "keys", "peers", "targets"]

FOLDER = Path("/etc/wghsm")


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


def gateways(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of running gateways."""
    return _fitting(running_gateways(), incomplete)


def targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of running gateways, and files."""
    items = [CompletionItem(name) for name in gateways(ctx, param, incomplete)]
    return [*items, CompletionItem(incomplete, type="file")]


def _gateways(ctx: click.Context) -> Iterator[Gateway]:
    # Not at the top: every command that names a peer would wait for it.
    from wghsm.config import ConfigError, load

    said = ctx.params.get("config")
    named = [said] if isinstance(said, str) else list(said or ())
    for file in named or sorted(map(str, FOLDER.glob("*.yaml"))):
        with contextlib.suppress(ConfigError, OSError):
            yield load(file)


def _fitting(names: Iterable[str | None], incomplete: str) -> list[str]:
    return sorted({name for name in names if name and name.startswith(incomplete)})
