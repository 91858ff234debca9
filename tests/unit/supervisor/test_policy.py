"""Which tables, marks and routing rules the peers' default routes need, and in which order the kernel is told."""

import socket
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from tests.unit.supervisor.support import gateway, peer
from wghsm.config import Interface
from wghsm.supervisor import _policy
from wghsm.supervisor._fault import GatewayFault
from wghsm.supervisor._policy import PolicyRules, Way, outer_mark, ways
from wghsm.supervisor.model import Model, initial

FOUR, SIX = Way(4, 51820, 51820), Way(6, 51820, 51820)
Rule = tuple[int, int, int, int | None]


def model(*prefixes: str, fwmark: int = 0) -> Model:
    made = initial(gateway(peer(0)))
    return replace(made, fwmark=fwmark, owners={ip_network(each): b"" for each in prefixes})


def interface(**fields: Any) -> Interface:
    return gateway(peer(0)).interface.model_copy(update={"table": "auto", **fields})


def test_ways() -> None:
    every = model("0.0.0.0/0", "::/0", "10.0.0.0/8")
    assert ways(interface(), every) == {FOUR, SIX}
    assert ways(interface(), model("0.0.0.0/0")) == {FOUR}
    assert ways(interface(), model("128.0.0.0/1")) == frozenset()
    for table in ("off", 7):
        assert ways(interface(table=table), every) == frozenset()
        assert outer_mark(interface(table=table), every) == 0
    # The mark may be changed at run time, the table is the file's.
    assert ways(interface(fwmark=7), model("::/0", fwmark=9)) == {Way(6, 7, 9)}
    assert ways(interface(fwmark=7), model("::/0")) == {Way(6, 7, 7)}


def test_outer_mark() -> None:
    assert outer_mark(interface(), model("10.0.0.0/8")) == 0
    assert outer_mark(interface(), model("::/0")) == 51820
    assert outer_mark(interface(), model("10.0.0.0/8", fwmark=9)) == 9


class _Entry:
    def __init__(self, **values: int | None) -> None:
        self.values = values

    def get_attr(self, name: str) -> int | None:
        return self.values[name]


class Kernel:
    """Its rules: (priority, mark, table, suppressed length). `live`: tables that hold routes."""

    def __init__(self) -> None:
        self.rules: dict[int, list[Rule]] = {socket.AF_INET: [], socket.AF_INET6: []}
        self.passing: list[tuple[int, int, int]] = []
        self.live: set[int] = set()
        self.refuses_table = 0

    def get_rules(self, family: int) -> list[_Entry]:
        def entry(priority: int, mark: int, table: int, protocol: int) -> _Entry:
            return _Entry(FRA_PRIORITY=priority or None, FRA_FWMARK=mark, FRA_TABLE=table, FRA_PROTOCOL=protocol)

        own = [entry(priority, mark, table, 87) for priority, mark, table, _ in sorted(self.rules[family])]
        own += [entry(priority, mark, 254, 88) for each, priority, mark in self.passing if each == family]
        return [entry(0, 0, 255, 2), *own, entry(32766, 0, 254, 2), entry(32767, 0, 253, 2)]

    def get_routes(self, family: int, table: int) -> list[int]:
        assert family in self.rules
        return [1] if table in self.live else []

    def rule(self, verb: str, *, family: int, priority: int, **more: Any) -> None:
        rules = self.rules[family]
        if verb == "add" and more["protocol"] == 88:
            assert "flags" not in more
            self.passing.append((family, priority, more["fwmark"]))
            return
        if verb == "del" and any(each[:2] == (family, priority) for each in self.passing):
            self.passing = [each for each in self.passing if each[:2] != (family, priority)]
            return
        if verb == "del":
            (gone,) = [each for each in rules if each[0] == priority]
            rules.remove(gone)
            return
        if more["table"] == self.refuses_table:
            raise NetlinkError(95, "no policy routing")
        assert (more["flags"], more["protocol"]) == (2, 87)
        rules.append((priority, more["fwmark"], more["table"], more.get("FRA_SUPPRESS_PREFIXLEN")))

    @property
    def four(self) -> list[Rule]:
        return sorted(self.rules[socket.AF_INET])

    @property
    def six(self) -> list[Rule]:
        return sorted(self.rules[socket.AF_INET6])


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(_policy, "_believe_marks", lambda: None)
    return Kernel()


BOTH: list[Rule] = [(32764, 51820, 254, 0), (32765, 51820, 51820, None)]


def test_rules_come_in_pairs_and_only_once(kernel: Kernel) -> None:
    rules = PolicyRules(kernel)
    rules.follow({FOUR})
    rules.follow({FOUR})
    assert (kernel.four, kernel.six) == (BOTH, [])
    # Half of a pair is no pair.
    del kernel.rules[socket.AF_INET][0]
    rules.restore()
    assert kernel.four == BOTH
    rules.follow({SIX})
    assert (kernel.four, kernel.six) == ([], BOTH)
    rules.follow(())
    assert kernel.six == []


def test_another_mark_comes_before_the_old_one_goes(kernel: Kernel) -> None:
    rules = PolicyRules(kernel)
    rules.add({FOUR})
    rules.add({Way(4, 51820, 9)})
    assert kernel.four == [(32762, 9, 254, 0), (32763, 9, 51820, None), *BOTH]
    rules.follow({Way(4, 51820, 9)})
    assert kernel.four == [(32762, 9, 254, 0), (32763, 9, 51820, None)]


def test_a_mark_that_is_to_come_passes_before_all_rules(kernel: Kernel) -> None:
    rules = PolicyRules(kernel)
    rules.pass_by(9)
    assert kernel.passing == []
    rules.add({FOUR, SIX})
    rules.pass_by(FOUR.mark)
    assert kernel.passing == []
    rules.pass_by(9)
    assert kernel.passing == [(socket.AF_INET, 32763, 9), (socket.AF_INET6, 32763, 9)]
    rules.follow({Way(4, 51820, 9)})
    assert len(kernel.passing) == 2
    rules.end_passing()
    assert (kernel.passing, kernel.six) == ([], [])
    # One that was killed in between.
    rules.pass_by(10)
    PolicyRules(kernel).clear_stale()
    assert (kernel.passing, kernel.four) == ([], [])


def test_a_refusal_leaves_nothing_after_the_end(kernel: Kernel) -> None:
    kernel.refuses_table = 51820
    rules = PolicyRules(kernel)
    with pytest.raises(GatewayFault, match="no policy routing"):
        rules.add({FOUR})
    assert kernel.four == []


def test_what_leads_nowhere_is_stale(kernel: Kernel) -> None:
    PolicyRules(kernel).add({FOUR, SIX, Way(4, 7, 7)})
    kernel.live = {7}
    PolicyRules(kernel).clear_stale()
    assert kernel.six == []
    assert [mark for _, mark, _, _ in kernel.four] == [7, 7]
    # Another gateway's are not this one's to remove.
    PolicyRules(kernel).follow(())
    assert len(kernel.four) == 2
