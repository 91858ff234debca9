"""How important a record is, by syslog's numbers (RFC 5424 section 6.2.1): 4 warning, 5 notice, 6 informational."""

from wghsm.audit import Record

__all__ = ["severity"]

_WARNING = frozenset({"fault", "gap", "control.refused"})
_NOTICE = frozenset({"start", "stop", "recovery", "config.change", "peer.change", "psk.export", "key.change"})


def severity(record: Record) -> int:
    """The number for a record."""
    if record.kind in _WARNING or record.result != "ok":
        return 4
    return 5 if record.kind in _NOTICE else 6
