"""`wghsm schema`: the JSON Schema of a gateway file, on standard output, for editors."""

import click

from wghsm.cli._output import print_json

__all__ = ["schema"]


@click.command(
    epilog="Example: `wghsm schema > /etc/wghsm/schema.json`, and at the top of the gateway file "
    "`# yaml-language-server: $schema=/etc/wghsm/schema.json`."
)
@click.option("--peers", is_flag=True, help="The schema of a file of peers, which a gateway file includes.")
def schema(peers: bool) -> None:
    """Print the JSON Schema of a gateway file.

    An editor that knows it completes keys and marks faults as you type. `wghsm check` knows more: the rules between
    values.
    """
    from wghsm.config import json_schema, peers_schema

    print_json(peers_schema() if peers else json_schema())
