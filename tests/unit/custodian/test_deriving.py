"""Derives on their way to whichever token is in use, and back."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from tests.unit.custodian.support import token_fault
from wghsm.custodian.deriving import Deriving
from wghsm.custodian.effects import Derive, Effect, Report
from wghsm.custodian.workers import Workers
from wghsm.pkcs11_backend import PointRefused, TokenError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wghsm.custodian.vault import TokenVault

IDENTITY = bytes(32)


@dataclass(eq=False)
class Token:
    """A token's threads: what was asked waits until the test answers it."""

    asked: dict[int, bytes] = field(default_factory=dict)
    results: list[tuple[int, bytearray | TokenError]] = field(default_factory=list)
    event: int = -1

    def answer(self, result: bytearray | TokenError) -> None:
        """To the derive that has waited longest."""
        number = next(iter(self.asked))
        del self.asked[number]
        self.results.append((number, result))
        os.eventfd_write(self.event, 1)

    def take(self) -> Iterator[tuple[int, bytearray | TokenError]]:
        while self.results:
            yield self.results.pop(0)

    def longest(self) -> int:
        return 7 if self.asked else 0


class Vault:
    def __init__(self, token: Token | None) -> None:
        self.token = token
        self.fault: TokenError | None = None

    def begin_derive(self, event: int, number: int, _identity: bytes, public: bytes) -> Token | None:
        if self.fault is not None:
            raise self.fault
        if self.token is not None:
            self.token.event = event
            self.token.asked[number] = public
        return self.token

    def has_left(self, token: Token) -> bool:
        return self.token is not token

    def derive(self, _identity: bytes, public: bytes) -> bytearray:
        if self.fault is not None:
            raise self.fault
        return bytearray(public)


class Desk:
    """What lands is a report of the result and its name."""

    def __init__(self, token: Token | None) -> None:
        self.vault = Vault(token)
        self.workers = Workers(1, 10)
        self.deriving = Deriving(cast("TokenVault", self.vault), self.workers)

    def submit(self, name: str, public: bytes = bytes(32)) -> None:
        def landed(result: bytearray | TokenError, _now: int) -> list[Effect]:
            return [Report(f"{name} {bytes(result).hex()[:4] if isinstance(result, bytearray) else result}")]

        self.deriving.submit(Derive(IDENTITY, public, landed))

    def landed(self) -> list[str]:
        effects = [effect for landing in self.deriving.landings() for effect in landing(0)]
        return [effect.text for effect in effects if isinstance(effect, Report)]


def test_results_find_their_derives() -> None:
    token = Token()
    desk = Desk(token)
    desk.submit("a", b"\1" * 32)
    desk.submit("b", b"\2" * 32)
    assert list(token.asked.values()) == [b"\1" * 32, b"\2" * 32]
    assert desk.landed() == []
    assert desk.deriving.longest_running() == 7
    token.answer(bytearray(b"\x0a" * 32))
    token.answer(PointRefused("low"))
    assert desk.landed() == ["a 0a0a", "b low"]
    assert desk.deriving.longest_running() == 0
    assert desk.deriving.submitted == 2


def test_a_derive_that_cannot_begin_lands_as_its_fault() -> None:
    desk = Desk(Token())
    desk.vault.fault = token_fault()
    desk.submit("a")
    assert select.select([desk.deriving], [], [], 60)[0]
    assert desk.landed() == [f"a {desk.vault.fault}"]


def test_another_token_that_is_in_use_now_is_asked_instead() -> None:
    first, second = Token(), Token()
    desk = Desk(first)
    for name in "abc":
        desk.submit(name)
    desk.vault.token = second
    first.answer(token_fault())
    first.answer(bytearray(b"\x0b" * 32))
    assert desk.landed() == ["b 0b0b"]
    assert len(second.asked) == 1
    second.answer(bytearray(b"\x0a" * 32))
    first.answer(token_fault())
    assert desk.landed() == ["a 0a0a"]
    second.answer(token_fault())
    assert desk.landed() == [f"c {token_fault()}"]


def test_the_end_waits_for_the_token_but_not_for_ever() -> None:
    token = Token()
    desk = Desk(token)
    assert desk.deriving.stop(0)
    desk.submit("a")
    assert not desk.deriving.stop(0.01)
    secret = bytearray(b"\x0a" * 32)
    token.answer(secret)
    assert desk.deriving.stop(60)
    assert secret == bytes(32)


@pytest.mark.parametrize("fault", [None, token_fault()])
def test_without_threads_of_its_own_a_worker_derives(fault: TokenError | None) -> None:
    class Without(Vault):
        def begin_derive(self, _event: int, _number: int, _identity: bytes, _public: bytes) -> None:
            return None

    desk = Desk(None)
    desk.vault = Without(None)
    desk.vault.fault = fault
    desk.deriving = Deriving(cast("TokenVault", desk.vault), desk.workers)
    desk.submit("a", b"\x0a" * 32)
    assert desk.workers.stop(60)
    effects = [effect for landing in desk.workers.landings() for effect in landing(0)]
    assert effects == [Report("a 0a0a" if fault is None else f"a {fault}")]
