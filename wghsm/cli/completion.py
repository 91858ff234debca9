"""`wghsm completion SHELL`: what makes a shell complete commands, options, and names of peers, keys and gateways."""

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog="Examples: `wghsm completion bash > /etc/bash_completion.d/wghsm`, "
    "`wghsm completion zsh > /usr/share/zsh/vendor-completions/_wghsm`, "
    "`wghsm completion fish > /etc/fish/completions/wghsm.fish`."
)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print the completion script for bash, zsh or fish.

    Names of peers, keys, tokens and tags come from the gateway files, -c's or those in /etc/wghsm, those of running
    gateways from their sockets; a token is never asked.
    """
    from wghsm.cli import main

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"there is no completion for {shell}")
    click.echo(made(main, {}, "wghsm", "_WGHSM_COMPLETE").source())
