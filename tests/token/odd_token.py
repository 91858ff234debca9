"""A SoftHSM token behind a module with one oddity (odd_token.c): a pinpad, a locked PIN, a refused curve ...

with odd_token() as odd:
    odd.set(flags=0x20000)          from now on, also for processes that run already
    odd.uri, odd.environment, odd.pin

with odd_gateway() as (odd, token):    the same in a store of the custodian's uid, with a key and a root

Each has a module file of its own, so that its settings are its own too.
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.token.custodian_process import UID, GatewayToken
from wghsm.softhsm_setup import SoftHsmToken, softhsm_token

PIN_COUNT_LOW, PIN_FINAL_TRY, PIN_LOCKED, PINPAD = 0x10000, 0x20000, 0x40000, 0x100


@dataclasses.dataclass(frozen=True)
class OddToken:
    """The token; `made` is the SoftHSM token behind it with the URI of the odd module."""

    made: SoftHsmToken
    module: Path
    behind: str

    @property
    def uri(self) -> str:
        return self.made.uri

    @property
    def environment(self) -> dict[str, str]:
        return self.made.environment

    @property
    def pin(self) -> bytearray:
        return bytearray(self.made.pin_file.read_bytes().strip())

    def set(self, **settings: int | str) -> None:
        """Have these oddities and no others; a _ in a name stands for -, but C_ names are taken as they are."""
        lines = [f"module={self.behind}"]
        for name, value in settings.items():
            lines.append(f"{name if name.startswith('C_') else name.replace('_', '-')}={value}")
        settings_file = self.module.with_name(self.module.name + ".conf")
        unfinished = settings_file.with_suffix(".new")
        unfinished.write_text("\n".join(lines) + "\n")
        # At once: the module may be reading.
        unfinished.rename(settings_file)


@contextlib.contextmanager
def odd_token(uid: int | None = None, label: str = "odd") -> Iterator[OddToken]:
    """Make one; it stays loaded in a process that has loaded it."""
    with softhsm_token(label=label, uid=uid) as made:
        module = made.directory / "odd-softhsm.so"
        shutil.copyfile(_built(), module)
        module.chmod(0o755)
        made_here = dataclasses.replace(made, uri=made.uri.replace(str(made.module), str(module)), module=str(module))
        odd = OddToken(made_here, module, str(made.module))
        odd.set()
        yield odd


@contextlib.contextmanager
def odd_gateway() -> Iterator[tuple[OddToken, GatewayToken]]:
    """One for a real custodian process: its key is `gateway`, its root `root`."""
    with odd_token(uid=UID) as odd:
        made = subprocess.run(
            [sys.executable, "-c", _MAKE_KEYS, odd.uri],
            env={**os.environ, **odd.environment},
            capture_output=True,
            text=True,
            check=True,
        )
        yield odd, GatewayToken(odd.made, bytes.fromhex(made.stdout.strip()), b"")


_MAKE_KEYS = """
import os, sys
from wghsm.pkcs11_backend import TokenPool, TokenUri, open_pin
from wghsm.pkcs11_backend.provision import derive_root, generate_key
uri = TokenUri.parse(sys.argv[1])
pin = open_pin(uri.pin_source).read()
os.setgroups([]); os.setresgid(61100, 61100, 61100); os.setresuid(61100, 61100, 61100)
with TokenPool.open(uri, pin, 1, read_write=True) as pool:
    print(generate_key(pool, "gateway").public_key.hex())
    derive_root(pool, "root")
"""


@functools.cache
def _built() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="wghsm-", dir="/tmp")
    _folders.append(folder)
    source = Path(__file__).with_name("odd_token.c")
    target = Path(folder.name) / "odd-softhsm.so"
    subprocess.run(
        [
            *("gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-I/usr/include/p11-kit-1"),
            *("-o", str(target), str(source), "-ldl", "-lpthread"),
        ],
        check=True,
    )
    return target


_folders: list["tempfile.TemporaryDirectory[str]"] = []
