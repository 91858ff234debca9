"""Kernel routes in bulk: ten thousand of them, refusals, and what an address takes along when it goes."""

import json
import sys

from tests.network.support import Lab, Namespace, unique_interface

_PROGRAM = """
import json, sys
from ipaddress import ip_interface, ip_network
from wghsm.supervisor._fault import GatewayFault
from wghsm.supervisor._links import Links
from wghsm.supervisor._tun import Tun

name = sys.argv[1]
tun = Tun(name)
old, new, other = ip_interface("10.8.0.1/24"), ip_interface("10.9.0.1/24"), ip_interface("fd08::1/64")
links = Links(name, [old, other], "auto")
links.configure(1420)
many = [ip_network(f"10.{100 + (n >> 8)}.{n & 255}.0/24") for n in range(10_000)] + [ip_network("fd77::/64")]
inside = ip_network("10.8.0.7/32")
said = []

def count():
    with open("/proc/net/route") as four, open("/proc/net/ipv6_route") as six:
        return sum(name in line for line in four), sum(name in line and "fd77" in line for line in six)

links.add_routes([*many, inside])
said.append(count())
try:
    links.add_routes([ip_network("10.7.0.0/16"), many[3], ip_network("10.8.0.0/15")])
except GatewayFault as fault:
    said.append(str(fault))
said.append(count())
links.change_routes([ip_network("10.7.0.0/16")], [*many[:9_000], many[0]])
said.append(count())
links.add_address(new)
links.remove_address(old)
links.settle([new, other], "auto")
said.append([links.has_address(each) for each in (old, new, other)])
links.change_routes([inside], [])
said.append(count())
print(json.dumps(said))
"""


def run(namespace: Namespace, program: str) -> list[object]:
    said: list[object] = json.loads(namespace.run(sys.executable, "-c", program, unique_interface("wgr")).stdout)
    return said


def test_thousands_of_routes_come_and_go(lab: Lab) -> None:
    said = run(lab.namespace("routes"), _PROGRAM)
    # The address's own network is a route as well; 10.8.0.7 has none.
    assert said[0] == [10_001, 1]
    # Nothing of a change that is refused stays, and the line says what to do.
    assert str(said[1]).startswith("the route 10.100.3.0/24 in table 254 exists already; remove it, or")
    assert said[2] == [10_001, 1]
    assert said[3] == [1_002, 1]
    assert said[4] == [False, True, True]
    # Without the address's network the prefix inside it needs a route.
    assert said[5] == [1_003, 1]
