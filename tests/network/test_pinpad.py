"""A whole gateway whose PIN is typed at the token's pinpad: who has to be there is said at each time that matters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.network.support import Lab, UdpStream, ping_until, until
from tests.network.support.gateway_token import FoundToken
from tests.network.support.site import Site
from tests.token.odd_token import PINPAD, OddToken, odd_gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_PINPAD = "waiting for its PIN to be typed at the token's pinpad: an operator must be there"
AFTER_A_RESTART = "after a restart an operator must type its PIN at the token's pinpad"
DEVICE_ERROR = 0x30


@pytest.fixture
def made() -> Iterator[tuple[OddToken, bytes]]:
    with odd_gateway() as (odd, token):
        yield odd, token.public_key


def test_an_operator_is_called_for_at_the_start_and_at_a_repair(lab: Lab, made: tuple[OddToken, bytes]) -> None:
    odd, public_key = made
    typed = odd.pin.decode()
    uri = odd.uri.partition("&pin-source")[0] + "&pin-source=protected"
    site = Site(lab, FoundToken(uri, odd.environment, odd.made.pin_file, "odd", {"gateway": public_key}))
    client = site.client("client")
    gateway = site.gateway
    gateway.psk_root = None
    gateway.write()

    def told(state: str, detail: str) -> bool:
        try:
            status = gateway.status().token
        except (OSError, ValueError):
            return False
        return status is not None and (status.state, status.detail) == (state, detail)

    odd.set(flags=PINPAD, pinpad_wait=1)
    gateway.begin()
    until(lambda: told("away", AT_PINPAD), "status calls for an operator at the start", 60.0)
    odd.set(flags=PINPAD, pinpad=typed)
    until(gateway.serves, "the gateway serves", 60.0)
    assert told("ready", AFTER_A_RESTART)
    client.start()
    ping_until(client.namespace, site.inner4)
    stream = lab.add(UdpStream(client.namespace, site.namespace, site.inner6, lab.scratch, rate=50))
    stream.wait_for(50, limit=60.0)

    known = client.wait_for_age()
    odd.set(flags=PINPAD, pinpad_wait=1, C_DeriveKey=DEVICE_ERROR)
    gateway.command("rekey", gateway.name, client.name)
    until(lambda: told("away", AT_PINPAD), "status calls for an operator at the repair", 60.0)
    assert AT_PINPAD in gateway.command("status", gateway.name).stdout
    shown = json.loads(gateway.command("status", gateway.name, "--json").stdout)[0]["token"]
    assert (shown["state"], shown["detail"]) == ("away", AT_PINPAD)
    assert gateway.log().count(AT_PINPAD) >= 2
    stream.wait_for(50, limit=60.0)
    odd.set(flags=PINPAD, pinpad=typed)
    until(lambda: told("ready", AFTER_A_RESTART), "the token is back", 60.0)
    client.wait_for_handshake(known)
    stream.wait_for(50, limit=60.0)
    assert not stream.finish().lost
    assert gateway.restarts("custodian") == 0
    assert typed not in gateway.log()
