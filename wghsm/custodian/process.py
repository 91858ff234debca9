"""How a custodian begins: what only root may open, the drop, the token, then `service`.

    TokenSettings -> PIN source opened, state folder made            as root
    -> drop -> state file -> PIN read, latch asked -> module loaded, login (here a pinpad asks) -> key found -> Ready

Whatever the operator has to mend ends it with one line and an exit code of wghsm.exits.
"""

from __future__ import annotations

import base64
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from wghsm.exits import ExitCode
from wghsm.ipc import messages as m
from wghsm.pkcs11_backend import (
    PinLocked,
    PinRefused,
    PinSource,
    TokenError,
    TokenPool,
    TokenUri,
    essential_checks,
    open_pin,
)
from wghsm.process import ChildFault
from wghsm.wipe import wipe

from .latch import LatchFault, PinLatch
from .rules import Times
from .service import Service
from .state import State, StateFault, make_folder
from .vault import TokenVault

if TYPE_CHECKING:
    from wghsm.process import Child

__all__ = ["main"]

_log = logging.getLogger(__name__)


def main(child: Child, times: Times | None = None) -> None:
    """The custodian's whole life, with the protocol's times or a test's. Raises ChildFault and ProtocolError."""
    settings, fds = child.await_message(m.TokenSettings)
    try:
        uri = TokenUri.parse(settings.uri)
        source = open_pin(uri.pin_source, fds[0] if fds else None)
        folder = make_folder(Path(settings.state_directory), child.start.uid, child.start.gid)
        for fd in fds:
            os.close(fd)
        child.drop(keep_memory_lock=True)
        state = State(folder)
        if state.is_new:
            _log.info("a new state file: %s", state.path)
        latch = PinLatch(folder, uri.describe_token())
        note = _tell_who_types(child, source)
        vault = _log_in(settings, uri, source, latch)
        # What was typed at a pinpad is not known here, so there is nothing to latch.
        refused = _no_latch if source.pinpad else latch.close
        Service(child, settings, vault, state, times or Times(), refused, note).run()
    except TokenError as error:
        raise ChildFault(error.exit_code, str(error)) from None
    except (StateFault, LatchFault) as fault:
        raise ChildFault(ExitCode.SYSTEM, str(fault)) from None


def _tell_who_types(child: Child, source: PinSource) -> str:
    """Say that a person has to type the PIN now; the line for the time after, empty where nobody has to."""
    if not source.typed:
        return ""
    where = "at the token's pinpad" if source.pinpad else "at the terminal (pin-source=prompt)"
    text = f"waiting for its PIN to be typed {where}: an operator must be there"
    _log.warning("the token is away: %s", text)
    child.report(m.TokenStatus("away", time.time_ns(), text))
    return f"after a restart an operator must type its PIN {where}"


def _no_latch() -> None:
    pass


def _log_in(settings: m.TokenSettings, uri: TokenUri, source: PinSource, latch: PinLatch) -> TokenVault:
    pin = source.read_for_login(f"PIN of {uri.describe_token()}: ")
    try:
        if pin is not None and latch.is_refused(pin):
            raise ChildFault(
                ExitCode.PIN_REFUSED,
                f"{uri.describe_token()} has refused this PIN before, so it was not sent again; "
                f"correct the PIN, or delete {latch.path} to have it tried once more",
            )
        try:
            pool = TokenPool.open(uri, pin, settings.sessions, read_write=settings.runtime_psks)
        except PinLocked:
            raise
        except PinRefused:
            if pin is not None:
                latch.close()
            raise
    finally:
        wipe(pin)
    if not source.pinpad:
        latch.open()
    try:
        _check(pool, settings)
        key = pool.find_key(settings.key)
        root = None if settings.psk_root is None else pool.find_root(settings.psk_root)
    except BaseException:
        pool.close()
        raise
    shown = base64.b64encode(key.public_key).decode()
    _log.info("logged in to %s, key %r, public key %s", pool.token_name, settings.key, shown)
    return TokenVault(pool, key, root)


def _check(pool: TokenPool, settings: m.TokenSettings) -> None:
    """Raises TokenError, one sentence, where the token cannot do its work."""
    wrong = essential_checks(pool, settings.key, settings.psk_root)
    if wrong is not None:
        raise wrong
