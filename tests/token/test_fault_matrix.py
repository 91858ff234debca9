"""Every fault of the token, one by one, against a custodian that serves; and the page that tells of it.

`script/test tests/token/test_fault_matrix.py --write-docs` writes docs/fault-matrix.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.token import fault_matrix
from tests.token.fault_matrix import CRASHES, DURATIONS, HANGS, PATH, REPAIR_FAULTS, RETURNS, SLOW
from wghsm.pkcs11_backend._ckr import ckr_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = Path(__file__).parents[2] / "docs" / "fault-matrix.md"


@pytest.fixture(scope="module", autouse=True)
def _benches() -> Iterator[None]:
    yield
    fault_matrix.close()


@pytest.mark.parametrize("ckr", RETURNS, ids=ckr_name)
@pytest.mark.parametrize("function", PATH)
def test_a_call_of_the_handshake_path_fails(function: str, ckr: int) -> None:
    seen = {duration: fault_matrix.returned(function, ckr, duration) for duration in DURATIONS}
    assert "found well" in seen["once"].effect
    assert "ladder" in seen["twice"].effect
    assert "away" in seen["until it is cleared"].effect
    assert seen["until it is cleared"].recovery == "the first try after it"


@pytest.mark.parametrize(("function", "ckr"), REPAIR_FAULTS, ids=lambda value: str(value))
def test_a_repair_meets_another_fault(function: str, ckr: int) -> None:
    seen = fault_matrix.while_repairing(function, ckr)
    final = function == "C_Login" and ckr in (0xA0, 0xA3, 0xA4)
    assert ("ends with exit code 3" if final else "away") in seen.effect


@pytest.mark.parametrize("function", HANGS)
def test_a_call_never_returns(function: str) -> None:
    assert "ends by itself" in fault_matrix.hung(function).effect


@pytest.mark.parametrize("function", CRASHES)
def test_the_module_crashes(function: str) -> None:
    assert "nothing else" in fault_matrix.crashed(function).effect


@pytest.mark.parametrize("delay", SLOW)
def test_the_token_is_slow(delay: float) -> None:
    assert "no handshake is lost" in fault_matrix.slowed(delay).effect


def test_live_traffic_is_not_disturbed() -> None:
    assert all("no packet" in effect and spent for effect, spent in fault_matrix.live().values())


def test_the_page_tells_what_was_seen(request: pytest.FixtureRequest) -> None:
    seen = fault_matrix.page()
    if request.config.getoption("write_docs", default=False):
        _PAGE.write_text(seen)
    told = _PAGE.read_text()
    again = "write it anew: script/test tests/token/test_fault_matrix.py --write-docs"
    assert fault_matrix.without_times(told) == fault_matrix.without_times(seen), again
    for page in (seen, told):
        # All that does not wait for the operator was measured.
        times = fault_matrix.times_of(page)
        assert times.count("-") == 1, again
        assert all(re.fullmatch(r"-|\d+\.\d\d( to \d+\.\d\d)? s", one) for one in times), again
