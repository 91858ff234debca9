"""`wghsm schema`: JSON Schemas on standard output: of a gateway file, for editors, and of what commands print."""

import click
from click.shell_completion import CompletionItem

from wghsm.cli._output import CommandError, print_schema
from wghsm.exits import ExitCode

__all__ = ["schema"]


def _commands(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from wghsm.cli._json_table import OUTPUTS

    return [CompletionItem(name) for name in OUTPUTS if name.startswith(incomplete)]


@click.command(
    epilog="Examples: `wghsm schema > /etc/wghsm/schema.json`, and at the top of the gateway file "
    "`# yaml-language-server: $schema=/etc/wghsm/schema.json`; `wghsm schema --output 'peer list'`."
)
@click.option("--peers", is_flag=True, help="The schema of a file of peers, which a gateway file includes.")
@click.option(
    "--output", metavar="COMMAND", shell_complete=_commands, help="The schema of what COMMAND prints with --json."
)
@click.option("--markdown", is_flag=True, help="What every command prints with --json, as one Markdown page.")
def schema(peers: bool, output: str | None, markdown: bool) -> None:
    """Print the JSON Schema of a gateway file, or of what a command prints with --json.

    An editor that knows the file's completes keys and marks faults as you type. `wghsm check` knows more: the rules
    between values. What scripts may rely on in the output of commands is in docs/json.md.
    """
    if peers + (output is not None) + markdown > 1:
        raise CommandError(
            "--peers, --output and --markdown print one thing each; give one of them", ExitCode.BAD_CONFIG
        )
    if markdown:
        from wghsm.cli._json_page import markdown as page

        click.echo(page(), nl=False)
    elif output is not None:
        print_schema(_of_output(output))
    else:
        from wghsm.config import json_schema, peers_schema

        print_schema(peers_schema() if peers else json_schema())


def _of_output(command: str) -> dict[str, object]:
    from wghsm.cli import _json_table

    name = " ".join(command.split()).removeprefix("wghsm ")
    if name not in _json_table.OUTPUTS:
        known = ", ".join(_json_table.OUTPUTS)
        raise CommandError(f"no command {name!r} has --json; those that have: {known}", ExitCode.BAD_CONFIG)
    return _json_table.schema(name)
