"""Tokens of real modules for a custodian of its own uid: NSS softokn, and an OpenPGP card through OpenSC.

with nss_token() as token: ...         a store of the custodian's uid, with key `gateway` and root `root`
with card_token() as token: ...        a card in a virtual reader; its one key was made on it
token.made, token.public_key           for Custodian and Watched, as any GatewayToken
token.settings                         what the custodian's TokenSettings differ by
token.environment_names                what a gateway file must name under `environment:`
with token.away(): ...                 gone, then back
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.token import card
from tests.token.custodian_process import UID, GatewayToken, provision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["NSS_MODULE", "REAL", "MadeHere", "RealToken", "card_token", "nss_token"]

NSS_MODULE = "/usr/lib/x86_64-linux-gnu/libsoftokn3.so"
_PIN = b"custody-1234"


@dataclass(frozen=True)
class MadeHere:
    """Where the token is and what its module needs."""

    uri: str
    pin_file: Path
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RealToken(GatewayToken):
    """One token; `kinds` are the PSK kinds that it can do. `away` takes it away for a while, `fall` is a harder way."""

    label: str
    key: str
    root: str | None
    kinds: frozenset[str]
    away: Callable[[], AbstractContextManager[None]]
    fall: Callable[[], AbstractContextManager[None]] | None = None

    @property
    def settings(self) -> dict[str, object]:
        """How the custodian's settings differ from those of the tests' SoftHSM token."""
        return {"key": self.key, "psk_root": self.root}

    def wrap(self, peer: bytes, psk: bytes) -> bytes:
        """Make the wrapping key `wrap`, and seal a PSK for a peer and epoch 5."""
        return bytes.fromhex(provision(self.made, wrap=[peer.hex(), psk.hex()])["wrapped"][0])

    @property
    def environment_names(self) -> list[str]:
        """The variables that the module wants."""
        return sorted(self.made.environment)


@contextmanager
def _folder(pin: bytes) -> Iterator[Path]:
    """A folder that the custodian may pass, with a PIN file that only root may read."""
    folder = Path(tempfile.mkdtemp(prefix="wghsm-", dir="/tmp"))
    try:
        folder.chmod(0o711)
        (folder / "pin").touch(mode=0o600)
        (folder / "pin").write_bytes(pin + b"\n")
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _moved(store: Path) -> Iterator[None]:
    away = store.with_name("away")
    store.rename(away)
    try:
        yield
    finally:
        if store.exists():
            shutil.rmtree(store)
        away.rename(store)


@contextmanager
def nss_token() -> Iterator[RealToken]:
    """NSS softokn, in a store that belongs to the custodian."""
    with _folder(_PIN) as folder:
        store = folder / "store"
        store.mkdir(0o700)
        subprocess.run(["certutil", "-N", "-d", f"sql:{store}", "-f", str(folder / "pin")], check=True)
        for path in (store, *store.iterdir()):
            os.chown(path, UID, UID)
        # As docs/hsm.md has it.
        arguments = f"configdir='sql:{store}' secmod='secmod.db' flags="
        uri = (
            f"pkcs11:token=NSS%20Certificate%20DB?module-path={NSS_MODULE}"
            f"&pin-source=file:{folder / 'pin'}&x-init-args={quote(arguments)}"
        )
        made = MadeHere(uri, folder / "pin", folder)
        public = str(provision(made, new=True)["public"])
        yield RealToken(
            made,
            bytes.fromhex(public),
            b"",
            label="NSS Certificate DB",
            key="gateway",
            root="root",
            kinds=frozenset({"none", "derived", "wrapped"}),
            away=lambda: _moved(store),
        )


_PUBLIC = """
import sys
from wghsm.pkcs11_backend import TokenPool, TokenUri, open_pin
uri = TokenUri.parse(sys.argv[1])
with TokenPool.open(uri, open_pin(uri.pin_source).read(), 1) as pool:
    print(pool.find_key(sys.argv[2]).public_key.hex())
"""


@contextmanager
def card_token() -> Iterator[RealToken]:
    """An OpenPGP card through OpenSC and pcscd. `away` pulls it out, `fall` ends pcscd under it."""
    with card.virtual_card() as inserted, _folder(card.PIN) as folder:
        uri = f"pkcs11:token={quote(card.TOKEN_LABEL)}?module-path={card.MODULE}&pin-source=file:{folder / 'pin'}"
        made = MadeHere(uri, folder / "pin", folder, inserted.environment)
        asked = subprocess.run(
            [sys.executable, "-c", _PUBLIC, uri, card.KEY_LABEL],
            env={**os.environ, **inserted.environment},
            capture_output=True,
            text=True,
            check=True,
        )

        @contextmanager
        def turned(off: Callable[[], None], on: Callable[[], None]) -> Iterator[None]:
            off()
            try:
                yield
            finally:
                on()

        yield RealToken(
            made,
            bytes.fromhex(asked.stdout.strip()),
            b"",
            label=card.TOKEN_LABEL,
            key=card.KEY_LABEL,
            root=None,
            kinds=frozenset({"none"}),
            away=lambda: turned(inserted.pull, inserted.put),
            fall=lambda: turned(inserted.end_daemon, inserted.begin_daemon),
        )


REAL: Mapping[str, Callable[[], contextlib.AbstractContextManager[RealToken]]] = {
    "nss": nss_token,
    "card": card_token,
}
