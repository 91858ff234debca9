"""Names of endpoints: resolved by a process of its own, believed only as far as they are addresses."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.supervisor.support import KEYS
from wghsm import config
from wghsm.ipc import messages as m
from wghsm.process import Loop
from wghsm.supervisor import _endpoints
from wghsm.supervisor._endpoints import Resolving, literal

USER = (61105, 61105)
LIMIT = 60.0


class Collector:
    """A Resolving with the loop that it runs in."""

    def __init__(self, answer: str | None = None, families: tuple[int, ...] = (4, 6)) -> None:
        self.loop = Loop()
        self.found: dict[bytes, m.Endpoint] = {}
        entry = _endpoints.ENTRY if answer is None else (sys.executable, "-c", f"print({answer!r})")
        self.resolving = Resolving(self.loop, USER, families, self.found.update, entry)

    def run_until(self, number: int) -> None:
        deadline = self.loop.call_later(int(LIMIT * 1e9), self.loop.stop)
        while len(self.found) < number and deadline.callback is not None:
            self.loop.run_once(0.5)
        assert len(self.found) == number

    def close(self) -> None:
        self.resolving.close()
        self.loop.close()


def test_literal_addresses_need_nobody() -> None:
    assert literal(config.Endpoint("192.0.2.1", 5)) == m.Endpoint("192.0.2.1", 5)
    assert literal(config.Endpoint("2001:db8::1", 5)) == m.Endpoint("2001:db8::1", 5)
    assert literal(config.Endpoint("fe80::1%lo", 5)) == m.Endpoint("fe80::1", 5, socket.if_nametoindex("lo"))
    assert literal(config.Endpoint("fe80::1%nosuchlink", 5)) is None
    assert literal(config.Endpoint("localhost", 5)) is None


def test_a_name_is_resolved_by_the_real_resolver() -> None:
    world = Collector(families=(4,))
    world.resolving.want(KEYS[1], config.Endpoint("localhost", 51820))
    world.run_until(1)
    assert world.found == {KEYS[1]: m.Endpoint("127.0.0.1", 51820)}
    world.close()


def test_what_is_no_address_is_not_believed() -> None:
    answer = {"addresses": {"a.test": ["not-an-address", "192.0.2.9"], "b.test": ["fe80::1%3"]}, "errors": {}}
    world = Collector(json.dumps(answer))
    world.resolving.want(KEYS[1], config.Endpoint("a.test", 1))
    world.resolving.want(KEYS[2], config.Endpoint("b.test", 2))
    world.run_until(2)
    assert world.found == {KEYS[1]: m.Endpoint("192.0.2.9", 1), KEYS[2]: m.Endpoint("fe80::1", 2, 3)}
    world.close()


@pytest.mark.parametrize("answer", ["", "nonsense", '{"addresses": [1]}'])
def test_a_name_is_tried_again(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_endpoints, "_FIRST_RETRY", 1)
    world = Collector(answer)
    world.resolving._delay = 1
    world.resolving.want(KEYS[1], config.Endpoint("c.test", 1))
    while world.resolving._delay < 4:
        world.loop.run_once(1.0)
    good = json.dumps({"addresses": {"c.test": ["192.0.2.3"]}, "errors": {}})
    world.resolving._entry = (sys.executable, "-c", f"print({good!r})")
    world.run_until(1)
    world.close()


def test_a_peer_that_needs_none_any_more_gets_none() -> None:
    world = Collector(json.dumps({"addresses": {"a.test": ["192.0.2.9"], "b.test": ["192.0.2.8"]}, "errors": {}}))
    world.resolving.want(KEYS[1], config.Endpoint("a.test", 1))
    world.resolving.want(KEYS[2], config.Endpoint("b.test", 2))
    world.resolving.retain(lambda key: key == KEYS[2])
    world.run_until(1)
    assert set(world.found) == {KEYS[2]}
    world.close()


def test_a_resolver_at_work_is_ended() -> None:
    world = Collector()
    world.resolving._entry = (sys.executable, "-c", "import time; time.sleep(600)")
    world.resolving.want(KEYS[1], config.Endpoint("a.test", 1))
    while world.resolving._running is None:
        world.loop.run_once(1.0)
    process = world.resolving._running._popen
    world.close()
    assert process.returncode == -9


def test_the_resolver_drops_root_and_says_what_it_could_not_do() -> None:
    arguments = ["--uid", "61105", "--gid", "61105", "--parent", str(os.getpid())]
    request = json.dumps({"names": ["localhost", "nosuchname.invalid", "a" * 300], "families": [4]})
    done = subprocess.run(
        [*_endpoints.ENTRY, *arguments], input=request, capture_output=True, text=True, check=True, timeout=LIMIT
    )
    answer = json.loads(done.stdout)
    assert answer["addresses"] == {"localhost": ["127.0.0.1"]}
    assert set(answer["errors"]) == {"nosuchname.invalid", "a" * 300}
    source = Path(str(sys.modules["wghsm"].__file__)).parent / "resolver" / "__main__.py"
    assert source.read_text().index("privileges.drop") < source.read_text().index("sys.stdin.buffer.read")
