"""The note of a rotation that is under way, FILE.rotation beside the gateway file: what an interrupted one had begun.

{"version": 1, "from": label, "id": hex, "compromised": bool}

`id` is the CKA_ID of the key that the rotation makes. It is written before the token is touched and removed when
nothing is left to do. Called by the `wghsm key` commands, who hold the gateway file's lock.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from wghsm.cli._output import CommandError
from wghsm.cli._psk_file import replace_file
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend.provision import new_identity

__all__ = ["Pending"]

_LIMIT = 4096


@dataclass(frozen=True)
class Pending:
    """A rotation from the key with the label `old`."""

    old: str
    identity: bytes
    compromised: bool

    @staticmethod
    def begin(old: str, *, compromised: bool) -> "Pending":
        """A rotation that begins now, with a fresh CKA_ID."""
        return Pending(old, new_identity(), compromised)

    @staticmethod
    def path(file: Path) -> Path:
        """Where the note for a gateway file stands."""
        file = file.resolve()
        return file.with_name(file.name + ".rotation")

    @staticmethod
    def read(file: Path) -> "Pending | None":
        """The rotation that is under way, None if none is. Raises CommandError for anything else at its place."""
        path = Pending.path(file)
        try:
            with path.open("rb") as note:
                text = note.read(_LIMIT)
        except FileNotFoundError:
            return None
        try:
            match json.loads(text):
                case {"version": 1, "from": str(old), "id": str(identity), "compromised": bool(compromised)}:
                    return Pending(old, bytes.fromhex(identity), compromised)
        except ValueError:
            pass
        raise CommandError(
            f"{path} is no note that wghsm key rotate wrote, or it is damaged; compare the gateway file with "
            "`wghsm key list`, then remove the note",
            ExitCode.BAD_CONFIG,
        )

    def write(self, file: Path) -> None:
        """Have it on disk. Raises OSError."""
        said = {"version": 1, "from": self.old, "id": self.identity.hex(), "compromised": self.compromised}
        replace_file(Pending.path(file), json.dumps(said) + "\n")

    @staticmethod
    def remove(file: Path) -> None:
        """Forget the rotation: it is through. Raises OSError."""
        Pending.path(file).unlink(missing_ok=True)
