"""Files of wg-quick and systemd-networkd: every setting, every comment, and no key in a fault."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.wgquick import BadSiteError, Site, format_wg_quick, parse_networkd, parse_wg_quick

SECRET = base64.b64encode(bytes(range(1, 33))).decode()
PUBLIC = base64.b64encode(bytes(range(2, 34))).decode()
OTHER = base64.b64encode(bytes(range(3, 35))).decode()

CONF = f"""\
# our gateway
[Interface]
PrivateKey = {SECRET}   # made in May
Address = 10.8.0.1/24, fd08::1/64
address=10.9.0.1/24
ListenPort = 51820
MTU = 1412
FwMark = 0xca6c
Table = main
DNS = 10.8.0.1
PostUp = iptables -A FORWARD -i %i -j ACCEPT
SaveConfig = true

### Client alice
[Peer]
PublicKey = {PUBLIC}
PresharedKey = {SECRET}
AllowedIPs = 10.8.0.2/32, fd08::2/128
AllowedIPs = 10.20.0.0/16

[peer]
# friendly_name = bob / his phone
PublicKey={OTHER}
AllowedIPs=10.8.0.3/32
Endpoint = bob.example.org:51820
PersistentKeepalive = 25
# Endpoint = 192.0.2.1:1
[Peer]
PublicKey = {SECRET}
PersistentKeepalive = off
"""

NETDEV = f"""\
[NetDev]
Name=wg0
Kind=wireguard
MTUBytes=1400
Description=a gateway

[WireGuard]
PrivateKeyFile=/etc/systemd/network/wg0.key
ListenPort=51820
FirewallMark=0x10
RouteTable=1000
RouteMetric=5

# alice
[WireGuardPeer]
PublicKey={PUBLIC}
PresharedKeyFile=/etc/systemd/network/alice.psk
AllowedIPs=10.8.0.2/32,fd08::2/128

[WireGuardPeer]
PublicKey={OTHER}
PresharedKey={SECRET}
AllowedIPs=10.8.0.3/32
AllowedIPs=10.20.0.0/16
Endpoint=[2001:db8::1]:51820
PersistentKeepalive=25
"""

NETWORK = """\
[Match]
Name=wg0

[Network]
Address=10.8.0.1/24
DNS=10.8.0.1

[Address]
Address=fd08::1/64

[Route]
Destination=10.20.0.0/16

[Route]
Destination=10.99.0.0/16
"""


def wg_quick(text: str, name: str = "wg0") -> Site:
    return parse_wg_quick(bytearray(text.encode()), name)


def test_a_wg_quick_file() -> None:
    site = wg_quick(CONF)
    assert site.addresses == ["10.8.0.1/24", "fd08::1/64", "10.9.0.1/24"]
    assert (site.listen_port, site.mtu, site.fwmark, site.table) == (51820, 1412, "0xca6c", "254")
    assert bytes(site.private_key) == SECRET.encode()
    alice, bob, nobody = site.peers
    assert (alice.name, alice.public_key, bytes(alice.psk)) == ("alice", PUBLIC, SECRET.encode())
    assert alice.allowed_ips == ["10.8.0.2/32", "fd08::2/128", "10.20.0.0/16"]
    assert (bob.name, bob.endpoint, bob.keepalive, bytes(bob.psk)) == (
        "bob his phone",
        "bob.example.org:51820",
        25,
        b"",
    )
    assert (nobody.name, nobody.keepalive) == ("peer-3", 0)
    assert [(each.line, each.key) for each in site.left] == [(10, "DNS"), (11, "PostUp"), (12, "SaveConfig")]
    assert "under hooks:" in site.left[1].advice


def test_networkd_files() -> None:
    site = parse_networkd(bytearray(NETDEV.encode()), bytearray(NETWORK.encode()))
    assert (site.name, site.addresses) == ("wg0", ["10.8.0.1/24", "fd08::1/64"])
    assert (site.listen_port, site.mtu, site.fwmark, site.table) == (51820, 1400, "0x10", "1000")
    assert (bytes(site.private_key), site.private_key_file) == (b"", "/etc/systemd/network/wg0.key")
    alice, other = site.peers
    assert (alice.name, alice.psk_file) == ("alice", "/etc/systemd/network/alice.psk")
    assert (other.name, bytes(other.psk), other.endpoint) == ("peer-2", SECRET.encode(), "[2001:db8::1]:51820")
    assert other.allowed_ips == ["10.8.0.3/32", "10.20.0.0/16"]
    assert [each.key for each in site.left] == ["RouteMetric", "DNS", "Destination"]


def test_networkd_routes_only_what_it_is_told() -> None:
    without = bytearray(NETDEV.replace("RouteTable=1000\n", "").encode())
    assert parse_networkd(bytearray(without)).table == "off"
    assert parse_networkd(bytearray(without), bytearray(NETWORK.encode())).table == "auto"


def test_names_are_different_and_fit() -> None:
    peers = "".join(
        f"# {comment}\n[Peer]\nPublicKey = {PUBLIC}\n" for comment in ("a", "a", "x" * 90, SECRET, "a/b", "", "===")
    )
    names = [peer.name for peer in wg_quick("[Interface]\n" + peers).peers]
    assert names == ["a", "a-2", "peer-3", "peer-4", "a b", "peer-6", "peer-7"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no [Interface]"),
        ("hello", "line 1: neither"),
        ("a = b", "line 1: a setting outside"),
        ("[Interface]\nListenPort = 70000", "line 2: ListenPort is no number from 0 to 65535"),
        ("[Interface]\n[Peer]\n", "line 2: a [Peer] without PublicKey"),
        ("[Interface]\n[Server]\n", "line 2: a section"),
        (f"[Interface]\nPrivateKey = {SECRET[:-3]}\n", "line 2: PrivateKey is no key of 44 characters (not shown)"),
        (f"[Interface]\n{SECRET}\n", "neither"),
        (f"[Interface]\n{SECRET}{SECRET}\n", "neither"),
    ],
)
def test_faults_name_the_line_and_no_key(text: str, said: str) -> None:
    with pytest.raises(BadSiteError) as caught:
        wg_quick(text)
    assert said in str(caught.value)
    assert SECRET[:20] not in str(caught.value)


def test_keys_are_in_no_representation_and_can_be_wiped() -> None:
    site = wg_quick(CONF)
    assert SECRET not in repr(site).replace(f"public_key='{SECRET}'", "")
    site.wipe()
    assert not any(site.private_key)
    assert not any(site.peers[0].psk)


def test_a_written_site_has_no_secret_and_reads_as_it_was() -> None:
    site = wg_quick(CONF)
    text = format_wg_quick(site, private_key="in the token", psks={"alice": "wghsm psk export alice"})
    assert f"PresharedKey = {SECRET}" not in text
    assert f"PrivateKey = {SECRET}" not in text
    again = wg_quick(text)
    assert [(p.name, p.public_key, p.allowed_ips, p.endpoint, p.keepalive) for p in again.peers] == [
        (p.name, p.public_key, p.allowed_ips, p.endpoint, p.keepalive) for p in site.peers
    ]
    assert (again.addresses, again.listen_port, again.mtu, again.fwmark, again.table) == (
        site.addresses,
        site.listen_port,
        site.mtu,
        site.fwmark,
        site.table,
    )


def read_or_refused(text: bytes) -> None:
    for networkd in (False, True):
        try:
            if networkd:
                parse_networkd(bytearray(text), bytearray(text))
            else:
                parse_wg_quick(bytearray(text), "wg0")
        except BadSiteError as error:
            assert len(str(error)) < 300
            assert SECRET not in str(error)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read_or_refused(data)


@given(st.lists(st.sampled_from([*CONF.splitlines(), *NETDEV.splitlines(), *NETWORK.splitlines()]), max_size=30))
def test_any_order_of_lines_is_read_or_refused(chosen: list[str]) -> None:
    read_or_refused("\n".join(chosen).encode())


def test_the_caller_s_buffer_is_left_alone() -> None:
    buffer = bytearray(CONF.encode())
    before = bytes(buffer)
    parse_wg_quick(buffer, "wg0").wipe()
    assert bytes(buffer) == before
