"""The process that writes the audit log (docs/audit.md): one a gateway, with nothing but its folder and its sinks.

    supervisor, custodian, control --- AuditEvent ---+
    statistics table --- once a second, by cause ----+--> service -> writer (files) -> journald, syslog over TLS
    custodian <--- SignCheckpoint / CheckpointSigned +

Nobody ever waits for it: who tells it something sends without blocking, and counts what was not taken.
"""
