"""Old messages after a restart: each initiation that was ever accepted is refused, whichever process has died since."""

import os
import signal

import pytest

from tests.network.support import Lab, Rules, ping_until, until
from tests.network.support.gateway_token import GatewayToken
from tests.network.support.siege import Siege


@pytest.mark.parametrize("roles", [("custodian",), ("handshake",), ("custodian", "handshake"), ("supervisor",)])
def test_no_replay_works_after_a_restart(lab: Lab, token: GatewayToken, roles: tuple[str, ...]) -> None:
    siege = Siege(lab, token)
    siege.start()
    gateway, client = siege.site.gateway, siege.client
    known = client.wait_for_age()
    gateway.command("rekey", gateway.name)
    client.wait_for_handshake(known)
    ping_until(client.namespace, siege.site.inner4)
    initiations = [packet for packet in siege.relay.captured("to_right") if packet[0] == 1]
    assert initiations
    if roles == ("supervisor",):
        # A whole new gateway, which knows nothing but the state file. Nothing new comes from the client meanwhile.
        siege.relay.rule("to_right", Rules(loss=1.0))
        gateway.stop(signal.SIGTERM)
        gateway.start()
    else:
        before = gateway.pids()
        for role in roles:
            os.kill(before[role], signal.SIGKILL)
        until(
            lambda: gateway.serves() and all(gateway.pids()[role] not in (0, before[role]) for role in roles),
            "they are back",
        )
    endpoint = gateway.peer(client.public_key).endpoint
    complete, accepted = gateway.counter("handshake-complete"), gateway.counter("initiation-received")
    for initiation in initiations:
        refused = gateway.counter("old-timestamp")

        def is_refused(initiation: bytes = initiation, refused: int = refused) -> bool:
            # Again: one that comes before the processes know the public key is not judged at all.
            siege.stranger.sendto(initiation, siege.target)
            return gateway.counter("old-timestamp") > refused

        until(is_refused, "the replay is refused", pause=0.2)
    assert gateway.counter("initiation-received") == accepted
    assert gateway.counter("handshake-complete") == complete
    assert gateway.peer(client.public_key).endpoint == endpoint
    siege.stranger.setblocking(False)
    with pytest.raises(BlockingIOError):
        siege.stranger.recv(65535)
    siege.relay.rule("to_right", Rules())
    ping_until(client.namespace, siege.site.inner4, 120)
