"""Known answers and properties of the handshake are tried with both twins of its steps."""

from collections.abc import Iterator

import pytest

from wghsm.noise import _chosen, _native, _steps


@pytest.fixture(params=[_native, _steps], ids=["c", "python"], scope="module")
def twin(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make handshakes run the steps in C, and then those in Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chosen, "steps", request.param)
        yield
