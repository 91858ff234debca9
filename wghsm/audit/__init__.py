"""The audit log: records in a chain of hashes, sealed by signatures, in files that rotate (docs/audit.md).

    Event -> AuditLog.append -> lines in files (and to the sinks of the caller)
             due? -> statement -> signed by the token's audit key -> checkpoint

Knows nobody. Called by the auditor process, by the commands that touch keys, and by `wghsm audit verify|show`. What
only readers need (and with it `cryptography`) comes on first use: the auditor and the custodian never load it.
"""

import importlib
from typing import TYPE_CHECKING

from .chain import Chain, Head, stream_name
from .files import Limits, LogBusyError, LogError
from .log import AuditLog
from .record import KINDS, Event, Kind, Record, Who, decode, json_schema, rfc3339
from .statement import Statement

if TYPE_CHECKING:
    from .anchor import Anchor, read_anchor
    from .public_key import PublicKey
    from .scan import Problem
    from .show import LogReader, Wanted
    from .verify import LogReport, Report, verify

__all__ = [
    "KINDS",
    "Anchor",
    "AuditLog",
    "Chain",
    "Event",
    "Head",
    "Kind",
    "Limits",
    "LogBusyError",
    "LogError",
    "LogReader",
    "LogReport",
    "Problem",
    "PublicKey",
    "Record",
    "Report",
    "Statement",
    "Wanted",
    "Who",
    "decode",
    "json_schema",
    "read_anchor",
    "rfc3339",
    "stream_name",
    "verify",
]

_LATER = {
    "anchor": ("Anchor", "read_anchor"),
    "public_key": ("PublicKey",),
    "scan": ("Problem",),
    "show": ("LogReader", "Wanted"),
    "verify": ("LogReport", "Report", "verify"),
}


def __getattr__(name: str) -> object:
    for module, names in _LATER.items():
        if name in names:
            found = importlib.import_module(f"{__name__}.{module}")
            # All of them: a module may have the name of a function of its own.
            globals().update({each: getattr(found, each) for each in names})
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
