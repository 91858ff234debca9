"""Clients' configurations: free addresses, what the file says, and QR codes that read as what was meant."""

import base64
import configparser
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.qr import of_png, of_svg, of_terminal
from tests.unit.config.samples import GOOD, KEY_C
from wghsm.cli._addresses import free_addresses, own_addresses
from wghsm.cli._client_file import client_file, picture, terminal_code
from wghsm.cli._output import CommandError
from wghsm.cli._psk_file import new_file
from wghsm.config import Endpoint, load_text

PSK = base64.b64encode(bytes(range(32)))
PRIVATE = base64.b64encode(bytes(range(100, 132)))
REACHED = Endpoint("vpn.example.org", 51820)


def networks(*texts: str) -> list:  # type: ignore[type-arg]
    return [ip_network(text) for text in texts]


@pytest.mark.parametrize(
    ("interfaces", "taken", "free"),
    [
        (["10.8.0.1/24", "fd08::1/64"], [], ["10.8.0.2", "fd08::2"]),
        (["10.8.0.1/24", "fd08::1/64"], ["10.8.0.2/32", "fd08::2/128", "10.8.0.4/32"], ["10.8.0.3", "fd08::3"]),
        (["10.8.0.9/24"], ["10.8.0.0/29", "10.8.0.8/32"], ["10.8.0.10"]),
        (["10.8.0.1/30"], ["10.8.0.2/32"], []),
        (["10.8.0.1/30", "10.9.0.1/24"], ["10.8.0.2/32"], ["10.9.0.2"]),
        (["10.8.0.1/31"], [], ["10.8.0.0"]),
        (["10.8.0.1/32", "fd08::1/128"], [], []),
        (["10.8.0.1/24"], ["0.0.0.0/0", "10.8.0.0/24", "10.0.0.0/8"], ["10.8.0.2"]),
        (["fd08::1/64"], ["fd08::/65"], ["fd08::8000:0:0:0"]),
        (["10.8.0.1/24", "10.8.0.2/24"], [], ["10.8.0.3"]),
        ([], [], []),
    ],
)
def test_the_lowest_free_address_of_each_family(interfaces: list[str], taken: list[str], free: list[str]) -> None:
    found = free_addresses([ip_interface(each) for each in interfaces], networks(*taken))
    assert found == [ip_address(each) for each in free]


@given(st.integers(0, 255), st.sets(st.integers(0, 255), max_size=255), st.integers(20, 32))
def test_a_free_address_is_nobodys(own: int, taken: set[int], length: int) -> None:
    interface = ip_interface((f"10.8.0.{own}", length))
    prefixes = networks(*(f"10.8.0.{each}/32" for each in taken))
    for address in free_addresses([interface], prefixes):
        assert address in interface.network
        assert address != interface.ip
        assert all(address not in prefix for prefix in prefixes)
        if length < 31:
            assert address not in (interface.network.network_address, interface.network.broadcast_address)


def test_a_peers_own_addresses_are_single_and_within() -> None:
    allowed = networks("10.8.0.2/32", "10.20.0.0/16", "192.0.2.1/32", "fd08::2/128")
    interfaces = [ip_interface("10.8.0.1/24"), ip_interface("fd08::1/64")]
    assert own_addresses(interfaces, allowed) == networks("10.8.0.2/32", "fd08::2/128")


def configuration(extra: str = "", *, psk: bytes = PSK, private: bytes = PRIVATE) -> bytearray:
    gateway = load_text(GOOD.replace("mtu: 1420", "mtu: 1412") + extra)
    return client_file(gateway, gateway.peers[0], KEY_C, REACHED, bytearray(psk), bytearray(private))


def parsed(text: bytearray) -> configparser.ConfigParser:
    read = configparser.ConfigParser()
    read.read_string(text.decode())
    return read


def test_the_file_is_what_wg_quick_takes() -> None:
    extra = "clients:\n  dns: [10.8.0.1, example.org]\n  persistent_keepalive: 25\n  allowed_ips: [0.0.0.0/0, '::/0']\n"
    read = parsed(configuration(extra))
    assert dict(read["Interface"]) == {
        "privatekey": PRIVATE.decode(),
        "address": "10.8.0.2/32, fd08::2/128",
        "dns": "10.8.0.1, example.org",
        "mtu": "1412",
    }
    assert dict(read["Peer"]) == {
        "publickey": KEY_C,
        "presharedkey": PSK.decode(),
        "endpoint": "vpn.example.org:51820",
        "allowedips": "0.0.0.0/0, ::/0",
        "persistentkeepalive": "25",
    }


def test_what_is_not_known_is_left_out() -> None:
    text = configuration(psk=b"", private=b"")
    read = parsed(text)
    assert "privatekey" not in read["Interface"]
    assert b"# PrivateKey" in text
    assert "presharedkey" not in read["Peer"]
    assert read["Peer"]["allowedips"] == "10.8.0.0/24, fd08::/64"


def test_qr_codes_read_as_the_file() -> None:
    text = configuration("clients: {dns: [10.8.0.1]}\n")
    drawn = terminal_code(text)
    assert of_terminal(drawn) == text.decode()
    # White on black on every terminal, a light one too: an inverted code is none for many apps.
    assert all(line.startswith("\033[97m\033[40m") and line.endswith("\033[0m") for line in drawn.splitlines())
    assert of_png(picture(text, "png")) == text.decode()
    assert of_svg(picture(text, "svg")) == text.decode()


def test_a_configuration_too_long_for_a_code_is_told() -> None:
    with pytest.raises(CommandError, match="too long for a QR code"):
        terminal_code(bytearray(b"x" * 4000))


def test_a_new_file_is_private_and_never_replaces_one(tmp_path: Path) -> None:
    new_file(tmp_path / "a", bytearray(b"secret"))
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    with pytest.raises(CommandError, match="exists"):
        new_file(tmp_path / "a", b"other")
    (tmp_path / "b").symlink_to(tmp_path / "c")
    with pytest.raises(CommandError, match="exists"):
        new_file(tmp_path / "b", b"other")
    assert (tmp_path / "a").read_bytes() == b"secret"
