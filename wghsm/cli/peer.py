"""`wghsm peer`: the clients of a gateway file, day by day. What gives or shows one has a module of its own.

Each command that changes something: `_peer_file` writes the gateway file, `_in_force` has the running gateway read it.
"""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from wghsm.cli import _completing
from wghsm.cli._gateway_files import gateway_path
from wghsm.cli._in_force import bring_into_force
from wghsm.cli._output import CommandError, confirm, json_option, print_json
from wghsm.cli._peer_add import add, config
from wghsm.cli._peer_file import editing
from wghsm.cli._peer_list import list_, show
from wghsm.cli._peer_options import config_option, moment_text, reload_option
from wghsm.cli._peer_reset import reset_timestamp
from wghsm.cli._psk_export import peer_of
from wghsm.cli.shapes.peers import PeerChanged
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from wghsm.cli._peer_file import Change, Editing, Value
    from wghsm.config import Peer

__all__ = ["peer"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def peer() -> None:
    """Add, list, show, disable, rename and remove the clients of a gateway file."""


for _command in (add, config, list_, show, reset_timestamp):
    peer.add_command(_command)


@dataclass(frozen=True)
class _Options:
    """What every command that changes a peer takes."""

    reload: bool
    config: str | None
    as_json: bool

    def run(self, name: str, change: "Callable[[Editing, Peer], Change]", said: str) -> int:
        """Make the change of the peer `name`, bring it into force, and tell it with the words `said`."""
        path = gateway_path(self.config)
        with editing(path) as edit:
            found = peer_of(edit.gateway, name)
            made = change(edit, found)
            if made.gateway == edit.gateway:
                said = "is so already; nothing has changed"
            else:
                made.write()
        in_force = bring_into_force(path, edit.gateway.interface.name, wanted=self.reload)
        if self.as_json:
            print_json(PeerChanged(peer=found.name, gateway_file=str(made.file), gateway=in_force.shape()))
        else:
            click.echo(f"{made.file}: peer {found.name!r} {said}")
            click.echo(in_force.text, err=bool(in_force.exit_code))
        return int(in_force.exit_code)


def _changing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `_Options`; the function gets `options`."""

    @functools.wraps(command)
    def wrapped(reload: bool, config: str | None, as_json: bool, **others: Any) -> Any:
        return command(options=_Options(reload, config, as_json), **others)

    return reload_option(config_option(json_option(wrapped)))


@peer.command()
@click.argument("name", shell_complete=_completing.peers)
@_changing
def disable(name: str, options: _Options) -> int:
    """Have the gateway do as if NAME were not there: its session ends at once.

    Its entry, addresses and pre-shared key stay for `wghsm peer enable`.

    Example: wghsm peer disable alice-phone
    """
    return options.run(name, lambda edit, found: edit.change(found, {"disabled": True}), "is disabled")


@peer.command()
@click.argument("name", shell_complete=_completing.peers)
@_changing
def enable(name: str, options: _Options) -> int:
    """Let NAME in again. A peer that has expired needs another date first: wghsm peer expire.

    Example: wghsm peer enable alice-phone
    """

    def change(edit: "Editing", found: "Peer") -> "Change":
        if found.expires is not None and found.expires.timestamp() <= time.time():
            raise CommandError(
                f"peer {found.name!r} has expired; first give it another date: wghsm peer expire {found.name} 30d, or "
                "never",
                ExitCode.BAD_CONFIG,
            )
        return edit.change(found, {"disabled": None})

    return options.run(name, change, "is enabled")


@peer.command()
@click.argument("name", shell_complete=_completing.peers)
@click.argument("when")
@_changing
def expire(name: str, when: str, options: _Options) -> int:
    """Set the moment WHEN from which NAME is out: the running gateway ends its session then by itself.

    WHEN is a day (2027-03-31, which begins at 00:00 UTC), a moment in UTC (2027-03-31T18:00Z), a time from now (30d,
    12h, 90m), now, or never.

    \b
    Examples:
      wghsm peer expire guest 7d
      wghsm peer expire alice-phone never
    """
    moment = moment_text(when)
    said = "does not expire" if moment is None else f"expires {moment}"
    return options.run(name, lambda edit, found: edit.change(found, {"expires": moment}), said)


@peer.command()
@click.argument("name", shell_complete=_completing.peers)
@click.argument("new")
@_changing
def rename(name: str, new: str, options: _Options) -> int:
    """Call the peer NAME by the name NEW. Its session goes on.

    Example: wghsm peer rename alice-phone alice-old-phone
    """

    def change(edit: "Editing", found: "Peer") -> "Change":
        if any(other.name == new for other in edit.gateway.peers):
            raise CommandError(f"there is a peer {new!r} already; choose another name", ExitCode.BAD_CONFIG)
        return edit.change(found, {"name": new})

    return options.run(name, change, f"is called {new!r} now")


@peer.command(name="set")
@click.argument("name", shell_complete=_completing.peers)
@click.option("--note", help="A few words; an empty text takes the note away.")
@click.option(
    "--tag", "tags", metavar="WORD", multiple=True, shell_complete=_completing.tags, help="A tag more; may be repeated."
)
@click.option(
    "--untag",
    "untags",
    metavar="WORD",
    multiple=True,
    shell_complete=_completing.tags,
    help="A tag less; may be repeated.",
)
@click.option("--keepalive", metavar="SECONDS", type=click.IntRange(0, 65535), help="persistent_keepalive; 0 for none.")
@_changing
def set_(
    name: str,
    note: str | None,
    tags: tuple[str, ...],
    untags: tuple[str, ...],
    keepalive: int | None,
    options: _Options,
) -> int:
    """Change the note, the tags or the keepalive of NAME.

    Example: wghsm peer set alice-phone --note "until March" --tag guest --untag staff
    """
    if note is None and not tags and not untags and keepalive is None:
        raise CommandError("nothing to set: --note, --tag, --untag or --keepalive", ExitCode.BAD_CONFIG)

    def change(edit: "Editing", found: "Peer") -> "Change":
        fields: dict[str, Value | None] = {}
        if note is not None:
            fields["note"] = note or None
        if tags or untags:
            fields["tags"] = [tag for tag in dict.fromkeys([*found.tags, *tags]) if tag not in untags] or None
        if keepalive is not None:
            fields["persistent_keepalive"] = keepalive or None
        return edit.change(found, fields)

    return options.run(name, change, "is changed")


@peer.command()
@click.argument("name", shell_complete=_completing.peers)
@click.option("--yes", is_flag=True, help="Do not ask.")
@_changing
def remove(name: str, yes: bool, options: _Options) -> int:
    """Take NAME out of the gateway file: its session ends at once, and its addresses are free again.

    A PSK object of the token, or a file of wrapped PSKs, stays; the command says how it is removed.

    Example: wghsm peer remove guest --yes
    """
    from wghsm.config import PskObject, PskWrapped, load

    path = gateway_path(options.config)
    found = peer_of(load(path), name)
    confirm(f"Remove peer {found.name!r} from {path}?", yes=yes, refused="nothing was removed")
    code = options.run(name, lambda edit, here: edit.remove(here), "is removed")
    if isinstance(found.preshared_key, PskObject):
        label = found.preshared_key.label
        click.echo(f"its PSK stays in the token; remove it with: wghsm psk destroy {label} -c {path}", err=True)
    elif isinstance(found.preshared_key, PskWrapped):
        click.echo(f"its PSK stays in {found.preshared_key.file}; remove that file", err=True)
    return code
