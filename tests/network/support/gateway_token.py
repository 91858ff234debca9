"""A SoftHSM token for gateways under test, and the keys and secrets in it.

    with GatewayToken() as token:
        token.generate("gateway")        the public key, base64; several gateways may share token and key
        token.import_key(label, raw)     a private key that the test knows
        token.uri, token.environment     for a gateway file and for the processes that load the module

Provisioning goes through the `wghsm` command; what that does not offer, on purpose, through _token_process.py.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.json_output import check_json
from wghsm.softhsm_setup import make_token

__all__ = ["CUSTODIAN", "FoundToken", "GatewayToken", "wghsm"]

CUSTODIAN = 61100
"""The default uid of a gateway's custodian, to whom the store must belong."""


def wghsm(*arguments: str | Path) -> list[str]:
    """Give the command line of the installed `wghsm` command."""
    return [str(Path(sys.executable).with_name("wghsm")), *map(str, arguments)]


class GatewayToken:
    """One token in a folder of its own, removed by `close`."""

    def __init__(self, label: str = "wghsm-test") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="wghsm-", dir="/tmp"))
        try:
            self._made = make_token(self.folder, label=label, uid=CUSTODIAN)
        except BaseException:
            self.close()
            raise
        self.label = label
        self.uri = self._made.uri
        self.environment = self._made.environment
        self.pin_file = self._made.pin_file
        self._public_keys: dict[str, str] = {}

    @property
    def store(self) -> Path:
        """The folder that the module writes to."""
        return self.folder / "tokens"

    @property
    def pin(self) -> bytes:
        """The user PIN."""
        return self.pin_file.read_bytes().strip()

    def uri_with(self, label: str | None = None, module: str | None = None, pin_file: Path | None = None) -> str:
        """Give the URI with another token label, module or PIN file."""
        name, path, source = label or self.label, module or self._made.module, pin_file or self.pin_file
        return f"pkcs11:token={name}?module-path={path}&pin-source=file:{source}"

    def command(self, *arguments: str | Path, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `wghsm ARGUMENTS --token URI`; RuntimeError when it fails and `check` holds."""
        words = wghsm(*arguments, "--token", self.uri)
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **self.environment},
        )
        if check and done.returncode:
            raise RuntimeError(f"wghsm {' '.join(map(str, arguments))}: exit {done.returncode}: {done.stderr}")
        check_json(arguments, done.stdout)
        return done

    def generate(self, label: str) -> str:
        """Make a key; give its public key, base64."""
        self.command("key", "generate", label)
        return self.public_key(label)

    def public_key(self, label: str) -> str:
        """Give a key's public key, base64."""
        if label not in self._public_keys:
            self._public_keys[label] = self.command("key", "public", label).stdout.strip()
        return self._public_keys[label]

    def derive_root(self, label: str) -> None:
        """Make a root of derived PSKs."""
        self.command("psk", "derive-root", label)

    def put_psk(self, label: str, psk: str) -> None:
        """Store a PSK, base64, as an object."""
        self.command("psk", "put", label, stdin=psk + "\n")

    def secrets(self) -> set[str]:
        """Give the labels of the roots and PSK objects in the token."""
        return {each["label"] for each in json.loads(self.command("psk", "list", "--json").stdout)}

    def import_key(self, label: str, private: bytes) -> None:
        """Put a private key, 32 raw bytes, into the token, as PKCS#11 allows and `wghsm` does not."""
        self._ask({"do": "import", "label": label, "private": private.hex()})

    def make_other_curve(self, label: str) -> None:
        """Make a P-256 key, which no WireGuard can use."""
        self._ask({"do": "p256", "label": label})

    def change_pin(self, new: str) -> None:
        """Give the token another user PIN, without a word to the PIN file."""
        self._ask({"do": "change the PIN", "new": new})

    def secret_value(self, label: str) -> bytes | None:
        """Read a secret object's value as its owner with the PIN can; None if there is none."""
        answer = self._ask({"do": "read", "label": label})
        return None if answer is None else bytes.fromhex(str(answer))

    def _ask(self, order: dict[str, str]) -> object:
        script = Path(__file__).with_name("_token_process.py")
        whole = {**order, "module": self._made.module, "token": self.label, "pin": self.pin.decode(), "uid": CUSTODIAN}
        done = subprocess.run(
            [sys.executable, "-I", str(script)],
            input=json.dumps(whole),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **self.environment},
        )
        if done.returncode:
            raise RuntimeError(f"the token would not {order['do']}: {done.stderr}")
        answer: object = json.loads(done.stdout)
        return answer

    def close(self) -> None:
        """Remove the store."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FoundToken(GatewayToken):
    """A token of any module, in the shape that gateways and sites know; who made it ends it."""

    def __init__(
        self, uri: str, environment: Mapping[str, str], pin_file: Path, label: str, public_keys: Mapping[str, bytes]
    ) -> None:
        """`public_keys` by the label of the key, 32 bytes each."""
        self.uri = uri
        self.environment = dict(environment)
        self.pin_file = pin_file
        self.folder = pin_file.parent
        self.label = label
        self._public_keys = {key: base64.b64encode(public).decode() for key, public in public_keys.items()}

    def close(self) -> None:
        """Leave it to its maker."""
