"""A short soak; `script/soak` runs a long one."""

from tests.network.soak import soak
from tests.network.support import Lab
from tests.network.support.gateway_token import GatewayToken


def test_a_short_soak_loses_nothing_of_its_own_and_leaks_nothing(lab: Lab, token: GatewayToken) -> None:
    account = soak(lab, token, seconds=45)
    assert account.faults() == []
    assert account.handshakes > 6
    assert account.moves > 4
    assert all(stream.received > 1000 and stream.dropped > 0 for stream in account.streams)
