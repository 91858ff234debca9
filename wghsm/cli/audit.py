"""`wghsm audit`: the audit log's key, and what is done with the log."""

import click

from wghsm.cli._audit_key import key
from wghsm.cli._audit_show import schema, show
from wghsm.cli._audit_verify import verify

__all__ = ["audit"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def audit() -> None:
    """Make the audit log's key, verify and show the log."""


for command in (key, verify, show, schema):
    audit.add_command(command)
