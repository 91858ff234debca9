"""The keeper ends a custodian whose memory has grown, unless somebody would have to type a PIN."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from wghsm.custodian import keeper
from wghsm.custodian.health import TokenTimes
from wghsm.custodian.keeper import LARGEST_GROWTH, Keeper
from wghsm.exits import ExitCode
from wghsm.process import ChildFault

if TYPE_CHECKING:
    from wghsm.custodian.deriving import Deriving
    from wghsm.custodian.vault import TokenVault
    from wghsm.custodian.workers import Workers
    from wghsm.process import Loop


def make(note: str) -> Keeper:
    vault = SimpleNamespace(token="token 'gw'", several=False, at_pinpad=False)  # noqa: S106
    workers = SimpleNamespace(longest_running=lambda: 0, running_aside=lambda: 0, submitted=0)
    deriving = SimpleNamespace(longest_running=lambda: 0, submitted=0)
    loop = SimpleNamespace(call_later=lambda _delay, _callback: None)
    return Keeper(
        cast("TokenVault", vault),
        cast("Workers", workers),
        cast("Deriving", deriving),
        cast("Loop", loop),
        TokenTimes(),
        lambda _counter: None,
        lambda: None,
        note,
    )


def test_the_memory_of_this_process_is_known() -> None:
    assert 2**20 < keeper.resident() < 2**40


@pytest.mark.parametrize("note", ["", "an operator must be there"])
def test_a_custodian_that_has_grown_is_started_again(note: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = 2**26
    monkeypatch.setattr(keeper, "resident", lambda: held)
    watched = make(note)
    watched._watch()
    held += LARGEST_GROWTH
    watched._watch()
    held += 1
    if note:
        watched._watch()
    else:
        with pytest.raises(ChildFault, match="grown by 256 MB") as caught:
            watched._watch()
        assert caught.value.exit_code == ExitCode.FAILURE
