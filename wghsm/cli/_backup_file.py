"""The file of `wghsm key backup`: one JSON document, no secret to anyone without the wrapping key.

{"version": 1, "kind": "wghsm key backup", "label": ..., "public_key": base64, "mechanism": "CKM_...",
 "wrap_key": label, "wrapped": base64}
"""

import base64
import binascii
import json
from pathlib import Path

from wghsm.cli._output import CommandError
from wghsm.cli._psk_file import new_file
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend.key_backup import MECHANISMS, Backup

__all__ = ["backup_from", "backup_of", "read_backup", "write_backup"]

_KIND = "wghsm key backup"
_LIMIT = 16384


def backup_of(backup: Backup) -> dict[str, object]:
    """Return the document of a backup."""
    return {
        "version": 1,
        "kind": _KIND,
        "label": backup.label,
        "public_key": base64.b64encode(backup.public_key).decode(),
        "mechanism": backup.mechanism,
        "wrap_key": backup.wrap_key,
        "wrapped": base64.b64encode(backup.wrapped).decode(),
    }


def backup_from(document: object) -> Backup | None:
    """Return the backup that a document holds, None when it holds none."""
    if not isinstance(document, dict) or document.get("version") != 1 or document.get("kind") != _KIND:
        return None
    names = ("label", "public_key", "mechanism", "wrap_key", "wrapped")
    texts = [document.get(name) for name in names]
    if not all(isinstance(text, str) for text in texts):
        return None
    label, public_key, mechanism, wrap_key, wrapped = map(str, texts)
    try:
        backup = Backup(
            label=label,
            public_key=base64.b64decode(public_key, validate=True),
            mechanism=mechanism,
            wrap_key=wrap_key,
            wrapped=base64.b64decode(wrapped, validate=True),
        )
    except (binascii.Error, ValueError):
        return None
    return backup if len(backup.public_key) == 32 and backup.wrapped and mechanism in MECHANISMS else None


def write_backup(path: str, backup: Backup) -> None:
    """Write a new file of mode 0600. Raises CommandError when there is one, OSError."""
    new_file(Path(path), (json.dumps(backup_of(backup), indent=2) + "\n").encode())


def read_backup(path: str) -> Backup:
    """Read the file. Raises CommandError when it is no backup, OSError."""
    with open(path, "rb") as file:  # noqa: PTH123  (a limit on what is read)
        text = file.read(_LIMIT + 1)
    try:
        backup = backup_from(json.loads(text)) if len(text) <= _LIMIT else None
    except ValueError:
        backup = None
    if backup is None:
        raise CommandError(f"{path} is no backup that wghsm key backup wrote, or it is damaged", ExitCode.BAD_CONFIG)
    return backup
