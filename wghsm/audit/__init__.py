"""The audit log: records in a chain of hashes, sealed by signatures, in files that rotate (docs/audit.md).

    Event -> AuditLog.append -> lines in files (and to the sinks of the caller)
             due? -> statement -> signed by the token's audit key -> checkpoint

Knows nobody. Called by the auditor process, by the commands that touch keys, and by `wghsm audit verify|show`.
"""

from .anchor import Anchor, read_anchor
from .chain import Chain, Head, stream_name
from .files import Limits, LogBusyError, LogError
from .log import AuditLog
from .record import KINDS, Event, Kind, Record, Who, decode, json_schema, rfc3339
from .scan import Problem
from .show import LogReader, Wanted
from .statement import PublicKey, Statement
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
