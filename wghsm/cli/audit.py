"""`wghsm audit`: the audit log's key, and what is done with the log."""

import click

from wghsm.cli._audit_key import key

__all__ = ["audit"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def audit() -> None:
    """Make the audit log's key, verify and show the log."""


audit.add_command(key)
