"""A smart card without hardware: an OpenPGP card (jcecard) in a virtual reader (vpcd) of a pcscd of our own.

    with virtual_card() as card:
        card.environment            for processes that load OpenSC's module
        card.pull(), card.put()     take it out of the reader, put it back
    card.end_daemon(), card.begin_daemon()      kill pcscd under everybody, start another with the same card

    OpenSC --unix socket--> pcscd --vpcd, in a network namespace of its own--> process.py: the card

The X25519 key is made on the card before it is handed out, as gpg does it. The socket's path is one for the whole
process, because libpcsclite reads it only once.
"""

import atexit
import contextlib
import functools
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ADMIN_PIN", "KEY_LABEL", "MODULE", "PIN", "TOKEN_LABEL", "VirtualCard", "virtual_card"]

MODULE = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"
PIN = b"123456"
ADMIN_PIN = b"12345678"
KEY_LABEL = "Encryption key"
"""What OpenSC calls the card's one key that may derive."""
TOKEN_LABEL = "OpenPGP card (User PIN)"  # noqa: S105


class VirtualCard:
    """The running card; made by `virtual_card`."""

    def __init__(self, process: "subprocess.Popen[str]", environment: dict[str, str]) -> None:
        self.environment = environment
        self._process = process

    def pull(self) -> None:
        """Take the card out of the reader; pcscd notices at its next look, soon."""
        self._say("out")

    def put(self) -> None:
        """Put the same card back; returns once pcscd has switched it on."""
        self._say("in")

    def end_daemon(self) -> None:
        """Kill pcscd, and take the card out."""
        self._say("down")

    def begin_daemon(self) -> None:
        """Start another pcscd, and put the same card back."""
        self._say("up")
        self.put()

    def _say(self, word: str) -> None:
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("the card's process has no pipes")
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if answer != word:
            raise RuntimeError(f"the virtual card did not do {word!r}: {answer or 'its process ended'}")


@contextlib.contextmanager
def virtual_card() -> Iterator[VirtualCard]:
    """Start pcscd and the card with a new key in it, and end them."""
    folder = _folder()
    process = subprocess.Popen(
        ["unshare", "--mount", "--net", sys.executable, "-m", "tests.token.card.process", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    environment = {
        "PCSCLITE_CSOCK_NAME": str(folder / "run/pcscd.comm"),
        "OPENSC_CONF": str(folder / "opensc.conf"),
    }
    card = VirtualCard(process, environment)
    try:
        card.put()
        yield card
    finally:
        # The process ends pcscd before it ends itself.
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="wghsm-card-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o711)
    # pcscd wants its own folder to be passable for its clients.
    (folder / "run").mkdir(mode=0o755)
    # Without the list OpenSC tries every card that it knows, which takes seconds.
    (folder / "opensc.conf").write_text(
        "app default {\n    card_drivers = openpgp;\n    framework pkcs15 {\n        use_file_caching = no;\n    }\n}\n"
    )
    (folder / "reader.conf").write_text(
        'FRIENDLYNAME "wghsm card"\nDEVICENAME /dev/null:35963\n'
        "LIBPATH /usr/lib/pcsc/drivers/serial/libifdvpcd.so\nCHANNELID 35963\n"
    )
    return folder
