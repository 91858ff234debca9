"""A whole gateway with two tokens that hold one key and one PSK root: over and back under traffic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.network.support import Lab, ping_until, until
from tests.network.support.gateway import CHILDREN
from tests.network.support.gateway_token import FoundToken
from tests.network.support.site import Site
from tests.token import short_gateway
from tests.token.faulty_token import FaultyToken, twins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.token.custodian_process import GatewayToken

DEVICE_ERROR = 0x30


@pytest.fixture
def tokens() -> Iterator[tuple[FaultyToken, GatewayToken]]:
    with twins(one_root=True) as made:
        yield made


def test_the_other_token_takes_over_under_traffic_and_hands_back(
    lab: Lab, tokens: tuple[FaultyToken, GatewayToken]
) -> None:
    first, second = tokens
    made = first.made
    keys = {"gateway": first.public_key}
    site = Site(lab, FoundToken(made.uri, made.environment, made.pin_file, "first", keys))
    client = site.client("client", psk="derived")
    gateway = site.gateway
    gateway.psk_root = "root"
    gateway.token_section = {"uris": [first.made.uri, second.made.uri]}
    gateway.program = (sys.executable, str(Path(short_gateway.__file__)))
    gateway.write()
    site.start()
    client.start()
    ping_until(client.namespace, site.inner4)
    streams = site.streams(client)

    def in_use(label: str) -> bool:
        status = gateway.status().token
        return status is not None and status.state == "ready" and status.token == f"token '{label}'"

    assert in_use("first")
    known = client.wait_for_age()
    first.rig.fail("*", DEVICE_ERROR)
    gateway.command("rekey", gateway.name, client.name)
    until(lambda: in_use("second"), "the second token is in use", 60.0)
    # The attempt that is under way succeeds by itself, with the PSK that the second token derives.
    client.wait_for_handshake(known)
    assert "token 'second'" in gateway.command("status", gateway.name).stdout
    first.rig.clear()
    until(lambda: in_use("first"), "the first token is in use again", 60.0)
    known = client.wait_for_age()
    gateway.command("rekey", gateway.name, client.name)
    client.wait_for_handshake(known)
    for stream in streams:
        stream.wait_for(50, limit=60.0)
    assert [len(stream.finish().lost) for stream in streams] == [0, 0]
    assert sum(gateway.restarts(role) for role in CHILDREN) == 0
    log = gateway.log()
    assert log.count("token 'second' is in use in place of token 'first'") == 1
    assert log.count("token 'first' is back and in use again in place of token 'second'") == 1
