"""The `wghsm` command: one group whose sub-commands are imported only when they are asked for.

A command that provisions a token must not pay for (or load) what a gateway needs, and the other way round, so
the table below names each command's module and its one-line help; nothing else here knows them.
"""

import importlib
from typing import Any

import click

from wghsm import __version__, interrupt
from wghsm.cli import _output

__all__ = ["main"]

_COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("wghsm.cli.init:init", "Make token, key and gateway file for a first gateway."),
    "token": ("wghsm.cli.token:token", "Make, list, show and examine PKCS#11 tokens."),
    "key": ("wghsm.cli.key:key", "Make, import, list, show, back up, rotate and destroy X25519 keys in a token."),
    "psk": ("wghsm.cli.psk:psk", "Make, store and hand out pre-shared keys."),
    "audit": ("wghsm.cli.audit:audit", "Make the audit log's key, verify and show the log."),
    "peer": ("wghsm.cli.peer:peer", "Add, list, show, disable, rename and remove clients."),
    "import": ("wghsm.cli.import_:import_", "Turn a wg-quick or systemd-networkd configuration into a gateway file."),
    "export": ("wghsm.cli.export:export", "Write a gateway file as wg-quick has it, without secrets."),
    "schema": ("wghsm.cli.schema:schema", "Print the JSON Schema of a gateway file, for editors."),
    "check": ("wghsm.cli.check:check", "Check a gateway file without starting anything."),
    "run": ("wghsm.cli.run:run", "Run a gateway in the foreground."),
    "up": ("wghsm.cli.run:up", "Start a gateway in the background."),
    "down": ("wghsm.cli.run:down", "End a gateway."),
    "plan": ("wghsm.cli.plan:plan", "Show what a reload of a gateway file would change."),
    "reload": ("wghsm.cli.reload:reload", "Bring a changed gateway file into force; sessions go on."),
    "status": ("wghsm.cli.status:status", "Show running gateways and their peers."),
    "ceremony": ("wghsm.cli.ceremony:ceremony", "Make a gateway's keys with several people, and print a transcript."),
    "inventory": ("wghsm.cli.inventory:inventory", "List every key and pre-shared key, its age, and what is due."),
    "completion": ("wghsm.cli.completion:completion", "Print what makes a shell complete commands and names."),
    "man": ("wghsm.cli.man:man", "Show or write the manual pages."),
    "rekey": ("wghsm.cli.status:rekey", "Start fresh handshakes at a running gateway."),
}


class _LazyGroup(click.Group):
    """A click group that imports a sub-command at its first use and ends through one error handler."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  (click's signature)
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            found = super().resolve_command(ctx, args)
        except click.NoSuchCommand as fault:
            raise click.NoSuchCommand(fault.command_name, possibilities=_COMMANDS, ctx=ctx) from None
        # The command is imported; what it does may want to be tidied up.
        interrupt.raise_as_usual()
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        invoke: Any = super().main
        extra.setdefault("color", _output.colours())
        if not standalone_mode:
            return invoke(*args, standalone_mode=False, **extra)
        return _output.run_command(lambda: invoke(*args, standalone_mode=False, **extra))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="wghsm")
def main() -> None:
    """Run a WireGuard gateway whose long-term secrets stay in a PKCS#11 token."""
