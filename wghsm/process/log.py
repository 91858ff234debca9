"""Logging of the gateway's processes: lines on standard error, which the supervisor's starter keeps.

    2026-01-01T10:00:00.123Z wg0 handshake[4711] info: text

Called by each process at its start. Nothing secret is ever given to a logger; nothing here filters.
"""

import logging
import os
import sys
import time

__all__ = ["configure_log"]


class _Formatter(logging.Formatter):
    def __init__(self, gateway: str, role: str) -> None:
        super().__init__(f"%(asctime)s {gateway} {role}[{os.getpid()}] %(level)s: %(message)s")
        self.converter = time.gmtime
        self.default_time_format = "%Y-%m-%dT%H:%M:%S"
        self.default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        record.level = record.levelname.lower()
        return super().format(record)


def configure_log(gateway: str, role: str, level: str) -> None:
    """Send the log of this process to standard error; `level` is debug, info, warning or error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(gateway, role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Tracebacks could show the values of a raising expression.
    logging.raiseExceptions = False
