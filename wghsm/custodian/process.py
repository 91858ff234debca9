"""How a custodian begins: what only root may open, the drop, the token, then `service`.

    TokenSettings -> PIN source opened, state folder made            as root
    -> drop -> state file -> PINs read -> latch asked, module loaded, login (here a pinpad asks), key found   `vault`
    -> Ready                                                       also while no token is there, if it is to wait

Whatever the operator has to mend ends it with one line and an exit code of wghsm.exits.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from wghsm.exits import ExitCode
from wghsm.ipc import messages as m
from wghsm.pkcs11_backend import KeyUnfit, PinSource, TokenError, TokenUri, open_pin
from wghsm.process import ChildFault
from wghsm.wipe import wipe

from .health import TokenTimes
from .keeper import AT_PINPAD
from .latch import LatchFault, PinLatch
from .rules import Times
from .service import Service
from .state import State, StateFault, make_folder
from .vault import Candidate, TokenVault, is_away

if TYPE_CHECKING:
    from wghsm.process import Child

__all__ = ["main"]

_log = logging.getLogger(__name__)

_SWITCH = 0.0005


def main(child: Child, times: Times | None = None, token_times: TokenTimes | None = None) -> None:
    """The custodian's whole life, with the usual times or a test's. Raises ChildFault and ProtocolError."""
    settings, fds = child.await_message(m.TokenSettings)
    try:
        uris = [TokenUri.parse(uri) for uri in (settings.uri, *settings.twins)]
        sources = [open_pin(uri.pin_source, fds[0] if fds else None) for uri in uris]
        folder = make_folder(Path(settings.state_directory), child.start.uid, child.start.gid)
        for fd in fds:
            os.close(fd)
        child.drop(keep_memory_lock=True, behind=True)
        # A worker whose token has answered waits for the interpreter that long, not for the usual 5 ms.
        sys.setswitchinterval(_SWITCH)
        state = State(folder)
        if state.is_new:
            _log.info("a new state file: %s", state.path)
        # Only one that is alone may have a PIN that is typed.
        note = _tell_who_types(child, sources[0])
        candidates = [
            Candidate(
                uri,
                source.read_for_login(f"PIN of {uri.describe_token()}: "),
                PinLatch(folder, uri.describe_token(), shared=len(uris) > 1),
            )
            for uri, source in zip(uris, sources, strict=True)
        ]
        vault = TokenVault(settings, candidates)
        away = _open(vault, wait=settings.at_start == "wait")
        _unseal(vault, settings)
        Service(child, settings, vault, state, times or Times(), token_times or TokenTimes(), away, note).run()
    except TokenError as error:
        # A token that does not work is as good as none; the custodian of a gateway that serves waits for it.
        code = ExitCode.TOKEN_UNUSABLE if is_away(error) else error.exit_code
        raise ChildFault(code, str(error)) from None
    except (StateFault, LatchFault) as fault:
        raise ChildFault(ExitCode.SYSTEM, str(fault)) from None


def _open(vault: TokenVault, *, wait: bool) -> TokenError | None:
    """Open the first token that works; why there is none, if that is to be waited for. Raises TokenError."""
    try:
        vault.open()
    except TokenError as error:
        if wait and is_away(error):
            return error.with_traceback(None)
        vault.close()
        raise
    return None


def _unseal(vault: TokenVault, settings: m.TokenSettings) -> None:
    """See that what must open does. Raises TokenError."""
    for each in settings.sealed:
        source = m.PskWrapped(each.epoch, each.sealed)
        try:
            wipe(vault.psk(vault.identities[0], source, each.public_key))
        except TokenError as error:
            vault.close()
            if isinstance(error, KeyUnfit):
                raise KeyUnfit(f"{each.where}: {error}") from None
            raise


def _tell_who_types(child: Child, source: PinSource) -> str:
    """Say that a person has to type the PIN at a pinpad now; the line for the time after, empty where nobody has to."""
    if not source.typed:
        return ""
    if not source.pinpad:
        # The prompt itself asks for it, at a terminal that shows the log as well.
        return "after a restart an operator must type its PIN at the terminal (pin-source=prompt)"
    _log.warning("the token is away: %s", AT_PINPAD)
    child.report(m.TokenStatus("away", time.time_ns(), AT_PINPAD))
    return "after a restart an operator must type its PIN at the token's pinpad"
