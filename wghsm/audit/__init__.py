"""The audit log: records in a chain of hashes, sealed by signatures, in files that rotate (docs/audit.md).

    Event -> AuditLog.append -> lines in files (and to the sinks of the caller)
             due? -> statement -> signed by the token's audit key -> checkpoint

Knows nobody. Called by the auditor process, by the commands that touch keys, and by `wghsm audit verify|show`.
"""

from .chain import Chain, Head, stream_name
from .files import Limits, LogBusy, LogError
from .log import AuditLog
from .record import Event, Kind, Record, Who, decode, json_schema
from .statement import PublicKey, Statement

__all__ = [
    "AuditLog",
    "Chain",
    "Event",
    "Head",
    "Kind",
    "Limits",
    "LogBusy",
    "LogError",
    "PublicKey",
    "Record",
    "Statement",
    "Who",
    "decode",
    "json_schema",
    "stream_name",
]
