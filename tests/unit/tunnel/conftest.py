"""The fixture `engine`: its users run with both implementations of the packet path."""

from collections.abc import Iterator

import pytest

from tests.unit.tunnel.support import ENGINES, Chosen


@pytest.fixture(scope="module", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Iterator[None]:
    before, Chosen.engine = Chosen.engine, ENGINES[request.param]
    yield
    Chosen.engine = before
