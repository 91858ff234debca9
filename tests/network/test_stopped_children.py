"""A child that is stopped, or that never gets back to its loop, is killed and started again like one that died."""

import os
import signal
from collections.abc import Sequence

import pytest

from tests.network.support import Lab, ping_until, until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.site import Site

LIMIT = 180.0
"""Seconds; six questions, five seconds apart, stay without an answer first."""

LOST = {("custodian", "control"): [0, 0], ("handshake", "egress", "ingress"): None}
"""Packets lost of a live session, None where its keys go with the process."""


@pytest.mark.parametrize("roles", LOST, ids="-".join)
def test_a_stopped_child_is_replaced(lab: Lab, token: GatewayToken, roles: Sequence[str]) -> None:
    site = Site(lab, token)
    client = site.client("client", psk="derived")
    gateway = site.start()
    client.start()
    ping_until(client.namespace, site.inner4)
    streams = site.streams(client)
    pids = gateway.pids()
    for role in roles:
        os.kill(pids[role], signal.SIGSTOP)

    def replaced() -> bool:
        try:
            return all(gateway.restarts(role) == 1 for role in roles) and gateway.serves()
        except OSError:
            # The control process is one of them.
            return False

    until(replaced, f"others in place of {', '.join(roles)}", LIMIT)
    assert {role: gateway.restarts(role) for role in pids} == {role: int(role in roles) for role in pids}
    for role in roles:
        assert f"{role} was killed: it has not answered for 30 s" in gateway.log()
    for stream in streams:
        stream.wait_for(50, limit=60.0)
    lost = [len(stream.finish().lost) for stream in streams]
    if (wanted := LOST[tuple(roles)]) is not None:
        assert lost == wanted
    ping_until(client.namespace, site.inner4)
