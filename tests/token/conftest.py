"""Tokens for the custody suite: one record a module; another module joins by adding its record to MODULES.

A module that is missing fails its tests: nothing here skips.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from wghsm.pkcs11_backend import TokenPool
from wghsm.softhsm_setup import softhsm_token


@dataclass(frozen=True)
class TokenUnderTest:
    uri: str
    pin: bytes
    environment: dict[str, str]
    # The folder that holds the token's objects, for tests that take it away; None where there is none.
    objects: Path | None


@contextmanager
def _softhsm() -> Iterator[TokenUnderTest]:
    pin = b"custody-1234"
    with softhsm_token(pin=bytearray(pin)) as made:
        yield TokenUnderTest(made.uri, pin, made.environment, made.directory / "tokens")


MODULES: Mapping[str, Callable[[], AbstractContextManager[TokenUnderTest]]] = {"softhsm": _softhsm}


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture(scope="module", params=sorted(MODULES))
def token(request: pytest.FixtureRequest) -> Iterator[TokenUnderTest]:
    """A fresh token for the tests of one file; each test uses labels of its own."""
    with MODULES[request.param]() as made, environment(made.environment):
        yield made


@pytest.fixture
def pool(token: TokenUnderTest) -> Iterator[TokenPool]:
    with TokenPool.open(token.uri, bytearray(token.pin), 2, read_write=True) as opened:
        yield opened


@pytest.fixture
def label(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)[:60]
