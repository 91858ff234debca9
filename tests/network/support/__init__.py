"""The laboratory of the network tests and benchmarks: namespaces, stock peers, traffic, a bad network, memory scans.

    with Lab() as lab:                       (or the fixture `lab`)
        near, far = lab.namespace("near"), lab.namespace("far")
        link = lab.connect(near, far)        addresses in link.left and link.right
        peer = lab.stock_peer(far, addresses=["10.8.0.2/24"])
        ...                                  everything is removed at the end, in reverse

Needs root. Nothing that this page hands out imports the gateway; the modules gateway, gateway_token, site and
software_peer beside it do, and are imported by name.
"""

from tests.network.support.lab import Lab, exit_on_signals
from tests.network.support.memory import FileHit, MemoryHit, MemoryScan, scan_files, scan_memory
from tests.network.support.netns import End, Link, Namespace, connect
from tests.network.support.process import Process, until
from tests.network.support.relay import Relay, Rules
from tests.network.support.stream import StreamReport, UdpStream
from tests.network.support.traffic import CopyResult, FileCopy, Pinger, PingResult, iperf3, ping, ping_until
from tests.network.support.wireguard_go import KeyPair, PeerState, StockPeer, make_psk, show_dump, unique_interface

__all__ = [
    "CopyResult",
    "End",
    "FileCopy",
    "FileHit",
    "KeyPair",
    "Lab",
    "Link",
    "MemoryHit",
    "MemoryScan",
    "Namespace",
    "PeerState",
    "PingResult",
    "Pinger",
    "Process",
    "Relay",
    "Rules",
    "StockPeer",
    "StreamReport",
    "UdpStream",
    "connect",
    "exit_on_signals",
    "iperf3",
    "make_psk",
    "ping",
    "ping_until",
    "scan_files",
    "scan_memory",
    "show_dump",
    "unique_interface",
    "until",
]
