"""Fixtures of the network tests: a laboratory for each test, and an end without leftovers also after SIGTERM."""

from collections.abc import Iterator

import pytest

from tests.network.support import Lab, exit_on_signals


@pytest.fixture(scope="session", autouse=True)
def _clean_end() -> Iterator[None]:
    with exit_on_signals():
        yield


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Give a laboratory; everything made in it is removed after the test."""
    with Lab() as made:
        yield made
