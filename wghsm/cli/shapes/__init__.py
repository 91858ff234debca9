"""What the commands print with --json, as typed values: names, types and one line for each field.

A shape is a promise to scripts (docs/json.md says which), so it stands apart from the command that fills it. Three are
documents of other rooms already: a gateway's status (ipc.admin), the inventory, the audit log's record.
`wghsm/cli/_json_table.py` says which command prints which.
"""

import msgspec

__all__ = ["said"]


def said(text: str) -> msgspec.Meta:
    """What a field means, for the JSON Schema and docs/json.md."""
    return msgspec.Meta(description=text)
