"""Fixtures of the network tests: a laboratory for each test, and an end without leftovers also after SIGTERM."""

from collections.abc import Generator, Iterator

import pytest

from tests.network.long_run import LongRun
from tests.network.support import Lab, exit_on_signals
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import PSK_ROOT


@pytest.fixture(scope="session", autouse=True)
def _clean_end() -> Iterator[None]:
    with exit_on_signals():
        yield


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Give a laboratory; everything made in it is removed after the test."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="session")
def token() -> Iterator[GatewayToken]:
    """Give a token with a key `gateway` and a root of derived PSKs, which gateways share."""
    with GatewayToken() as made:
        made.generate("gateway")
        made.derive_root(PSK_ROOT)
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the gateways and stock peers of its laboratory have seen."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and isinstance(lab, Lab):
        report.sections.append(("what ran in the laboratory", lab.account()))
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Collect the scenario that takes minutes last, when the other tests have passed the time."""
    items.sort(key=_waits_for_real_timers)


def _waits_for_real_timers(item: pytest.Item) -> bool:
    return "real_timers" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session")
def real_timers(token: GatewayToken) -> Iterator[LongRun]:
    """Give the scenario with wireguard-go's real timers, under way."""
    with Lab() as lab:
        yield LongRun(lab, token)


@pytest.fixture(scope="session", autouse=True)
def _start_real_timers_first(request: pytest.FixtureRequest, _clean_end: None) -> None:
    """Start that scenario with the first network test, if its own test is to run at all."""
    if any(map(_waits_for_real_timers, request.session.items)):
        request.getfixturevalue("real_timers")
