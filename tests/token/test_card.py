"""A smart card's own ways: a PIN that locks at the third wrong try, a card that is pulled in the middle of work."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.token import card
from tests.token.conftest import PATIENCE, answers, environment
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import PrivateKey, TokenFault, TokenPool
from wghsm.pkcs11_backend.tokens import list_tokens
from wghsm.pkcs11_backend.uri import TokenUri

URI = f"pkcs11:token={card.TOKEN_LABEL.replace(' ', '%20')}?module-path={card.MODULE}"
WRONG = b"654321"

# Each try is a process of its own, as a restarted custodian is: what a process remembers does not help it.
_LOG_IN = """
import sys
from wghsm.pkcs11_backend import TokenError, TokenPool
try:
    with TokenPool.open(sys.argv[1], bytearray(sys.stdin.buffer.read()), 1, at_final_try=len(sys.argv) > 2) as pool:
        print(pool.find_key("Encryption key").label)
except TokenError as fault:
    print(fault)
    sys.exit(fault.exit_code)
"""


@pytest.fixture
def inserted() -> Iterator[card.VirtualCard]:
    with card.virtual_card() as one, environment(one.environment):
        yield one


def _log_in(pin: bytes, *more: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", _LOG_IN, URI, *more], input=pin, capture_output=True, check=False, env=os.environ
    )
    assert pin not in done.stdout + done.stderr
    return done.returncode, done.stdout.decode().strip()


def _flags() -> set[str]:
    (shown,) = [one for one in list_tokens(TokenUri.parse(URI)) if one.label == card.TOKEN_LABEL]
    return {flag for flag in shown.flags if flag.startswith("USER_PIN")}


@pytest.mark.usefixtures("inserted")
def test_the_last_try_before_a_card_locks_is_not_spent() -> None:
    assert _log_in(card.PIN) == (0, card.KEY_LABEL)
    for left in (2, 1):
        code, line = _log_in(WRONG)
        assert (code, "refused the PIN" in line) == (ExitCode.PIN_REFUSED, True)
        assert ("USER_PIN_FINAL_TRY" in _flags()) == (left == 1)
    # Neither the wrong PIN nor the right one is sent now: a person has to say so.
    for pin in (WRONG, card.PIN):
        code, line = _log_in(pin)
        assert code == ExitCode.PIN_REFUSED
        assert len(line.splitlines()) == 1
    assert "USER_PIN_LOCKED" not in _flags()
    assert _log_in(card.PIN, "at-final-try") == (0, card.KEY_LABEL)
    assert "USER_PIN_FINAL_TRY" not in _flags()


@pytest.mark.usefixtures("inserted")
def test_a_locked_card_is_told_and_sent_nothing() -> None:
    for _ in range(2):
        _log_in(WRONG)
    assert _log_in(WRONG, "at-final-try")[0] == ExitCode.PIN_REFUSED
    code, line = _log_in(card.PIN, "at-final-try")
    assert code == ExitCode.PIN_REFUSED
    assert "locked" in line.lower()


def test_a_card_pulled_in_the_middle_of_work_comes_back(inserted: card.VirtualCard) -> None:
    with TokenPool.open(URI, bytearray(card.PIN), 2) as pool:
        key = pool.find_key(card.KEY_LABEL)
        faults: list[TokenFault] = []
        stop = threading.Event()
        threads = [threading.Thread(target=_use, args=(pool, key, faults, stop), daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        inserted.pull()
        for thread in threads:
            thread.join(PATIENCE)
        assert {fault.level for fault in faults} <= {1, 2}
        assert len(faults) == 2
        inserted.put()
        _climb(pool)
        assert answers(pool, key)


def _climb(pool: TokenPool) -> None:
    """Recover as the ladder says: OpenSC, when it has not seen the card go, needs the second step."""
    try:
        pool.recover(1)
    except TokenFault as fault:
        assert fault.level == 2
        pool.recover(2)


def _use(pool: TokenPool, key: PrivateKey, faults: list[TokenFault], stop: threading.Event) -> None:
    deadline = time.monotonic() + PATIENCE
    with contextlib.suppress(AssertionError):
        while not stop.is_set() and time.monotonic() < deadline:
            try:
                assert answers(pool, key)
            except TokenFault as fault:
                faults.append(fault)
                return
