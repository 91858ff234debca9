"""The laboratory itself: what the other network tests rest on must carry, drop, report and find as it says."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.network.support import (
    Lab,
    Link,
    Namespace,
    Pinger,
    Relay,
    Rules,
    StockPeer,
    UdpStream,
    iperf3,
    make_psk,
    ping,
    ping_until,
    scan_files,
    scan_memory,
    until,
)
from tests.network.support.netns import add_address
from tests.network.support.traffic import FileCopy

ROOT = Path(__file__).parents[2]


def two_peers(lab: Lab, family: int = 4) -> tuple[StockPeer, StockPeer]:
    """Two stock peers with a tunnel between them, over outer addresses of `family`."""
    near, far = lab.namespace("near"), lab.namespace("far")
    link = lab.connect(near, far)
    left = lab.stock_peer(near, ["10.8.0.1/24", "fd08::1/64"], listen_port=51820)
    right = lab.stock_peer(far, ["10.8.0.2/24", "fd08::2/64"], listen_port=51821)
    psk = make_psk()
    left.set_peer(right.public_key, ["10.8.0.2/32", "fd08::2/128"], link.right.endpoint(family, 51821), psk)
    right.set_peer(left.public_key, ["10.8.0.1/32", "fd08::1/128"], preshared_key=psk)
    return left, right


@pytest.mark.parametrize("family", [4, 6])
def test_two_stock_peers_ping_and_copy(lab: Lab, family: int) -> None:
    left, right = two_peers(lab, family)
    for address in ("10.8.0.2", "fd08::2"):
        ping_until(left.namespace, address)
        assert ping(left.namespace, address, count=3).lost == 0
        with FileCopy(left.namespace, right.namespace, address, lab.scratch, 2 << 20) as copy:
            result = copy.wait()
        assert result.intact
        assert result.bytes == 2 << 20
    assert abs(left.latest_handshake(right.public_key) - time.time()) < 120
    received, sent = left.transfer(right.public_key)
    assert sent > 2 << 20
    assert received > 0
    assert left.peers()[right.public_key].has_psk
    # What is shown with a failure.
    account = lab.account()
    assert f"wireguard-go {right.name}:" in account
    assert account.count("RX:") == 2
    assert "handshake" in account
    assert left.keys.private not in repr(left.keys)
    assert "andshake" in left.log()


def test_a_throttled_copy_lasts_and_iperf3_measures(lab: Lab) -> None:
    left, right = two_peers(lab)
    ping_until(left.namespace, "10.8.0.2")
    with FileCopy(left.namespace, right.namespace, "10.8.0.2", lab.scratch, 1 << 20, rate=1 << 20) as copy:
        copy.wait_for(0.3)
        assert copy.arrived() < 1 << 20
        assert copy.wait().intact
    found = iperf3(right.namespace, left.namespace, "10.8.0.2", lab.scratch, seconds=1)
    assert found["end"]["sum_received"]["bits_per_second"] > 0


def test_a_stock_peer_whose_socket_was_removed_is_started_again(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "wireguard-go"
    program.write_text(
        f'#!/bin/sh\nif [ -e {tmp_path}/again ]; then exec {shutil.which("wireguard-go")} "$@"; fi\n'
        f"touch {tmp_path}/again\necho 'ERROR: Failed to listen on uapi socket: no such file or directory'\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    peer = lab.stock_peer(lab.namespace("one"), ["10.8.0.1/24"])
    assert peer.peers() == {}
    program.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(RuntimeError, match="wireguard-go ended with 1"):
        lab.stock_peer(lab.namespace("two"), ["10.8.0.1/24"])


def test_an_ipv6_address_is_there_only_once_it_is_local(lab: Lab) -> None:
    near, far = lab.namespace("near"), lab.namespace("far")
    link = lab.connect(near, far)
    assert ping(near, link.right.ipv6, count=1).lost == 0
    # As it is for a moment after it was given: there, and nobody answers for it.
    far.run("ip", "-6", "route", "delete", "local", link.right.ipv6, "table", "local")
    assert link.right.ipv6 in far.run("ip", "-6", "address").stdout
    assert ping(near, link.right.ipv6, count=1, wait=0.5).received == 0
    with pytest.raises(TimeoutError, match=f"{link.right.ipv6} is local"):
        add_address(far, link.right.interface, f"{link.right.ipv6}/64", limit=0.1)


def relayed(lab: Lab, target_port: int) -> tuple[Namespace, Namespace, Relay]:
    """Two namespaces with a relay in a third; the target is the far one's address."""
    near, middle, far = (lab.namespace(hint) for hint in ("near", "middle", "far"))
    inner, outer = lab.connect(near, middle), lab.connect(middle, far)
    return near, far, lab.relay(inner.right, outer.left, outer.right.endpoint(4, target_port))


def test_the_relay_drops_what_it_was_told(lab: Lab) -> None:
    near, far, relay = relayed(lab, 51821)
    left = lab.stock_peer(near, ["10.8.0.1/24"])
    right = lab.stock_peer(far, ["10.8.0.2/24"], listen_port=51821)
    left.set_peer(right.public_key, ["10.8.0.2/32"], relay.left_endpoint)
    right.set_peer(left.public_key, ["10.8.0.1/32"])
    ping_until(near, "10.8.0.2")
    # A keepalive may take one of the three drops: count what the relay says, not the echoes.
    relay.rule("to_right", Rules(drop_next=3))
    ping(near, "10.8.0.2", count=10, wait=1.0)
    assert relay.counts("to_right").dropped == 3
    relay.rule("to_left", Rules(drop_types=(4,)))
    assert ping(near, "10.8.0.2", count=3, wait=0.5).received == 0
    relay.rule()
    assert ping(near, "10.8.0.2", count=3).lost == 0
    relay.rule("to_right", Rules(duplicate=1.0, reorder=0.3))
    assert ping(near, "10.8.0.2", count=10, interval=0.05).lost == 0
    counts = relay.counts("to_right")
    assert counts.duplicated > 0
    assert counts.reordered > 0
    assert {packet[0] for packet in relay.captured("to_right")} >= {1, 4}
    assert len(relay.captured("to_right")) >= counts.received


def outage(link: Link) -> None:
    """Half a second without a cable."""
    link.cut()
    started = time.monotonic()
    until(lambda: time.monotonic() > started + 0.5, "half a second")
    link.mend()


def test_the_stream_reports_a_gap(lab: Lab) -> None:
    near, far = lab.namespace("near"), lab.namespace("far")
    link = lab.connect(near, far)
    with UdpStream(near, far, link.right.ipv4, lab.scratch) as stream:
        stream.wait_for(20)
        before = stream.received()
        outage(link)
        stream.wait_for(20)
        report = stream.finish()
    assert report.lost
    assert report.sent == report.received + len(report.lost)
    assert report.received >= before + 20
    assert all(later - earlier == 1 for earlier, later in zip(report.lost, report.lost[1:], strict=False))
    assert report.longest_gap > 0.1


def test_the_stream_over_a_good_and_a_bad_relay(lab: Lab) -> None:
    near, far, relay = relayed(lab, 9)
    with UdpStream(near, far, "10.77.2.2", lab.scratch) as stream:
        # Straight, past the relay, is no route: nothing arrives, all of it is told as lost.
        report = stream.finish(quiet=0.5)
    assert report.received == 0
    assert len(report.lost) == report.sent
    relay.inject("to_right", b"anything")
    assert relay.counts("to_right").received == 0


def test_the_pinger_shows_an_outage(lab: Lab) -> None:
    near, far = lab.namespace("near"), lab.namespace("far")
    link = lab.connect(near, far)
    pinger = lab.add(Pinger(near, link.right.ipv4, lab.scratch))
    pinger.answer_after(0)
    count = len(pinger.answers())
    outage(link)
    moment = time.time()
    assert pinger.answer_after(moment) > moment
    result = pinger.stop()
    assert result.received > count
    assert result.missing


PLANTED = """
import sys
kept = bytearray.fromhex(sys.stdin.readline())
text = bytearray(bytes(kept).hex().encode()) if sys.argv[1] == "hex" else None
gone = bytearray(b"?" * 32)
for index in range(32):
    gone[index] = (kept[index] * 7 + 13) % 256
for index in range(32):
    gone[index] = 0
if text:
    for index in range(32):
        kept[index] = 0
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("form", ["raw", "hex"])
def test_the_memory_scan_finds_a_planted_secret_and_no_wiped_one(lab: Lab, form: str) -> None:
    secret = os.urandom(32)
    wiped = bytes((byte * 7 + 13) % 256 for byte in secret)
    script = lab.scratch / "planted.py"
    script.write_text(PLANTED)
    space = lab.namespace("memory")
    child = lab.add(space.start(sys.executable, script, form, folder=lab.scratch, label="planted"))
    child.tell(secret.hex())
    assert child.next_line() == "ready"
    scan = scan_memory(child.pid, {"kept": secret, "gone": wiped, "absent": os.urandom(32)})
    assert scan.names() == {"kept"}
    assert {hit.form for hit in scan.hits} >= {form}
    assert scan.scanned > 1 << 20
    assert secret.hex() not in repr(scan)


def test_the_memory_scan_finds_a_stock_peers_private_key(lab: Lab) -> None:
    import base64

    peer = lab.stock_peer(lab.namespace("one"), ["10.8.0.1/24"])
    private = base64.b64decode(peer.keys.private)
    # wireguard-go keeps the clamped key.
    clamped = bytes([private[0] & 248, *private[1:31], private[31] & 127 | 64])
    assert scan_memory(peer.pid, {"private": clamped}).names() == {"private"}


def test_the_scan_refuses_what_it_cannot_read() -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    with pytest.raises(ProcessLookupError):
        scan_memory(done.pid, {"any": b"12345678"})
    with pytest.raises(ValueError, match="too short"):
        scan_memory(os.getpid(), {"any": b"123"})


def test_the_file_scan_finds_every_form_and_follows_no_link(tmp_path: Path) -> None:
    import base64

    secret = os.urandom(32)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "raw").write_bytes(b"x" * 5000 + secret)
    (tmp_path / "base64").write_text("key = " + base64.b64encode(secret).decode())
    (tmp_path / "hex").write_text(secret.hex())
    (tmp_path / "clean").write_bytes(os.urandom(1000))
    (tmp_path / "link").symlink_to("hex")
    hits = scan_files([tmp_path], {"secret": secret})
    assert {(hit.path.name, hit.form, hit.offset) for hit in hits} == {
        ("raw", "raw", 5000),
        ("base64", "base64", 6),
        ("hex", "hex", 0),
    }


def test_a_find_across_two_blocks_is_told_once(tmp_path: Path) -> None:
    from tests.network.support.memory import CHUNK

    secret = os.urandom(32)
    (tmp_path / "large").write_bytes(bytes(CHUNK - 10) + secret + bytes(100))
    assert [hit.offset for hit in scan_files([tmp_path], {"secret": secret}, encoded=False)] == [CHUNK - 10]


INTERRUPTED = """
from tests.network.support import Lab, exit_on_signals
import signal
with exit_on_signals(), Lab() as lab:
    space = lab.namespace("doomed")
    peer = lab.stock_peer(space, ["10.8.0.1/24"])
    print(space.name, peer.name, peer.pid, lab.scratch, flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_a_signal(number: signal.Signals) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert child.stdout is not None
    with child.stdout:
        space, interface, pid, scratch = child.stdout.readline().split()
        child.send_signal(number)
        child.wait(30)
    assert not Path("/run/netns", space).exists()
    assert not Path("/var/run/wireguard", f"{interface}.sock").exists()
    assert not Path("/proc", pid).exists()
    assert not Path(scratch).exists()
