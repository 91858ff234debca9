"""The configuration protocol: what is parsed, what is refused, what is written."""

import errno
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.control.uapi import Get, Malformed, Set, format_device, next_operation
from wghsm.ipc.messages import DeviceView, Endpoint, PeerView

KEY_A, KEY_B = b"\x0a" * 32, b"\x0b" * 32


def parse(text: str, at_end: bool = False) -> object:
    return next_operation(bytearray(text.encode()), at_end)


def parsed_set(text: str) -> Set:
    operation = parse(text)
    assert isinstance(operation, Set), operation
    return operation


def test_a_get_is_whole_only_with_its_blank_line() -> None:
    assert parse("get=1\n") is None
    assert parse("get=1\n\n") == Get()
    assert parse("get=1\nx") == Malformed(errno.EINVAL)


def test_several_operations_on_one_connection() -> None:
    buffer = bytearray(b"get=1\n\nset=1\nfwmark=7\n\nget=1\n")
    assert next_operation(buffer) == Get()
    operation = next_operation(buffer)
    assert isinstance(operation, Set)
    assert operation.change.fwmark == 7
    assert next_operation(buffer) is None
    assert next_operation(buffer, at_end=True) == Get()


def test_the_end_of_the_stream_ends_a_set() -> None:
    operation = parse("set=1\nlisten_port=5\n", at_end=True)
    assert isinstance(operation, Set)
    assert operation.change.listen_port == 5


def test_a_whole_set_as_wg_sends_it() -> None:
    change = parsed_set(
        f"set=1\nlisten_port=51820\nfwmark=0\nreplace_peers=true\n"
        f"public_key={KEY_A.hex()}\nupdate_only=true\nendpoint=192.0.2.1:1234\npersistent_keepalive_interval=25\n"
        "replace_allowed_ips=true\nallowed_ip=10.0.0.5/24\nallowed_ip=fd00::1/64\n"
        f"public_key={KEY_B.hex()}\nremove=true\n\n"
    ).change
    assert (change.listen_port, change.fwmark, change.replace_peers) == (51820, 0, True)
    first, second = change.peers
    assert first.public_key == KEY_A
    assert first.update_only
    assert first.endpoint == Endpoint("192.0.2.1", 1234)
    assert first.persistent_keepalive == 25
    assert first.replace_allowed_ips
    assert first.add_allowed_ips == ["10.0.0.0/24", "fd00::/64"]
    assert second.public_key == KEY_B
    assert second.remove


def test_keys_are_kept_apart_from_the_change_and_out_of_every_repr() -> None:
    secret, psk = "ab" * 32, "cd" * 32
    operation = parsed_set(f"set=1\nprivate_key={secret}\npublic_key={KEY_A.hex()}\npreshared_key={psk}\n\n")
    assert operation.private_key == bytearray.fromhex(secret)
    assert operation.preshared_keys == {KEY_A: bytes.fromhex(psk)}
    assert operation.change.peers[0].psk is None
    for text in (repr(operation), str(operation.change)):
        assert secret not in text
        assert psk not in text
        assert "\\xab" not in text


def test_what_was_parsed_is_wiped_from_the_buffer() -> None:
    buffer = bytearray(b"set=1\nprivate_key=" + b"ab" * 32 + b"\n\n")
    assert isinstance(next_operation(buffer), Set)
    assert not buffer


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        ("nonsense", errno.EPROTO),
        ("listen_port=65536", errno.EINVAL),
        ("listen_port=-1", errno.EINVAL),
        ("listen_port=+1", errno.EINVAL),
        ("fwmark=4294967296", errno.EINVAL),
        ("replace_peers=false", errno.EINVAL),
        ("unknown=1", errno.EINVAL),
        ("rx_bytes=1", errno.EINVAL),
        ("private_key=00", errno.EINVAL),
        ("private_key=" + "zz" * 32, errno.EINVAL),
        ("private_key=" + " f" * 32, errno.EINVAL),
        ("public_key=00", errno.EINVAL),
        (f"public_key={KEY_A.hex()}\nremove=1", errno.EINVAL),
        (f"public_key={KEY_A.hex()}\nendpoint=example.org:1", errno.EINVAL),
        (f"public_key={KEY_A.hex()}\nendpoint=192.0.2.1", errno.EINVAL),
        (f"public_key={KEY_A.hex()}\nendpoint=fd00::1:51820", errno.EINVAL),
        (f"public_key={KEY_A.hex()}\nendpoint=192.0.2.1:65536", errno.EINVAL),
        (f"public_key={KEY_A.hex()}\nallowed_ip=10.0.0.1", errno.EINVAL),
        (f"public_key={KEY_A.hex()}\nallowed_ip=10.0.0.0/33", errno.EINVAL),
        (f"public_key={KEY_A.hex()}\npersistent_keepalive_interval=65536", errno.EINVAL),
        (f"public_key={KEY_A.hex()}\nprotocol_version=2", errno.EINVAL),
        (f"public_key={KEY_A.hex()}\nlisten_port=1", errno.EINVAL),
    ],
)
def test_a_bad_line_refuses_the_whole_operation(lines: str, number: int) -> None:
    assert parse(f"set=1\nfwmark=1\n{lines}\n\n") == Malformed(number)


def test_the_last_word_on_a_prefix_holds() -> None:
    peer = parsed_set(
        f"set=1\npublic_key={KEY_A.hex()}\nallowed_ip=10.0.0.0/8\nallowed_ip=-10.0.0.0/8\n"
        "allowed_ip=-10.1.0.0/16\nallowed_ip=10.1.0.0/16\n\n"
    ).change.peers[0]
    # What is added and then removed moves here first: removals come after additions.
    assert peer.add_allowed_ips == ["10.0.0.0/8", "10.1.0.0/16"]
    assert peer.remove_allowed_ips == ["10.0.0.0/8"]


def test_a_link_local_endpoint_keeps_its_scope() -> None:
    peer = parsed_set(f"set=1\npublic_key={KEY_A.hex()}\nendpoint=[fe80::1%3]:9\n\n").change.peers[0]
    assert peer.endpoint == Endpoint("fe80::1", 9, 3)


@pytest.mark.parametrize("text", ["put=1\n", "p", "gets", "get=1 ", "set=2", "\n", "\0", "get=1\r"])
def test_an_unknown_operation_is_refused_at_its_first_wrong_byte(text: str) -> None:
    assert parse(text) == Malformed(errno.EINVAL)


@pytest.mark.parametrize("text", ["", "g", "get=1", "get=1\n", "s", "set=1", "set=1\n", "set=1\nfwmark"])
def test_the_beginning_of_an_operation_waits_for_more(text: str) -> None:
    assert parse(text) is None


def test_the_search_for_the_end_goes_on_where_it_ended() -> None:
    buffer = bytearray(b"set=1\nfwmark=7\n")
    assert next_operation(buffer, searched=0) is None
    searched = len(buffer)
    buffer += b"\n"
    operation = next_operation(buffer, searched=searched)
    assert isinstance(operation, Set)
    assert operation.change.fwmark == 7


def test_very_many_prefixes_of_one_peer_are_taken_and_taken_back() -> None:
    prefixes = [f"10.{n >> 8 & 255}.{n & 255}.{n >> 16}/32" for n in range(20_000)]
    adds = "".join(f"allowed_ip={prefix}\n" for prefix in prefixes)
    drops = "".join(f"allowed_ip=-{prefix}\n" for prefix in prefixes)
    peer = parsed_set(f"set=1\npublic_key={KEY_A.hex()}\n{adds}{drops}{adds}\n").change.peers[0]
    assert peer.add_allowed_ips == prefixes
    assert peer.remove_allowed_ips == []


@given(st.lists(st.sampled_from(["+10.0.0.0/8", "-10.0.0.0/8", "+fd00::/8", "-fd00::/8"]), max_size=8))
def test_additions_then_removals_do_what_the_lines_do_in_order(lines: list[str]) -> None:
    text = "".join(f"allowed_ip={line.removeprefix('+')}\n" for line in lines)
    peer = parsed_set(f"set=1\npublic_key={KEY_A.hex()}\n{text}\n").change.peers[0]
    for before in ({}, {"10.0.0.0/8": "A"}, {"10.0.0.0/8": "B", "fd00::/8": "B"}):
        expected: dict[str, str] = dict(before)
        for line in lines:
            if line[0] == "+":
                expected[line[1:]] = "A"
            elif expected.get(line[1:]) == "A":
                del expected[line[1:]]
        found: dict[str, str] = {**before, **dict.fromkeys(peer.add_allowed_ips, "A")}
        for prefix in peer.remove_allowed_ips:
            if found.get(prefix) == "A":
                del found[prefix]
        assert found == expected


@given(st.binary(max_size=400))
def test_no_bytes_make_the_parser_fail(data: bytes) -> None:
    next_operation(bytearray(b"set=1\n" + data), at_end=True)
    next_operation(bytearray(data), at_end=True)


_LINES = st.sampled_from(
    ["fwmark=1", "listen_port=7", "replace_peers=true", f"public_key={KEY_A.hex()}", "allowed_ip=10.0.0.0/8", "x", "=="]
)
_STREAMS = st.lists(
    st.one_of(st.just("get=1\n\n"), st.lists(_LINES, max_size=4).map(lambda lines: "\n".join(["set=1", *lines, "\n"]))),
    max_size=5,
)


def operations(pieces: list[bytes]) -> list[object]:
    """What a client's stream comes to that arrives in these pieces, up to the first that makes no sense."""
    buffer, searched, found = bytearray(), 0, list[object]()
    for number, piece in enumerate(pieces, 1):
        buffer += piece
        while not any(isinstance(each, Malformed) for each in found):
            operation = next_operation(buffer, number == len(pieces), searched)
            searched = len(buffer) if operation is None else 0
            if operation is None:
                break
            found.append(operation)
    return found


@given(_STREAMS, st.binary(max_size=20), st.lists(st.integers(0, 400), max_size=12))
def test_it_is_all_one_in_which_pieces_a_stream_arrives(stream: list[str], rest: bytes, cuts: list[int]) -> None:
    whole = "".join(stream).encode() + rest
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [whole[start:end] for start, end in itertools.pairwise(places)]
    assert operations([*pieces, b""]) == operations([whole, b""])


def view(key: bytes, prefixes: list[str]) -> PeerView:
    return PeerView("p", key, "derived", Endpoint("fd00::9", 7), 25, prefixes, 1_500_000_000_000_000_001, 3, 4)


def test_a_get_shows_everything_but_secrets() -> None:
    device = DeviceView("wg0", b"\x01" * 32, 51820, 9, True)
    text = format_device(device, [view(KEY_A, ["10.0.0.0/8"]), view(KEY_A, ["fd00::/8"]), view(KEY_B, [])]).decode()
    assert text == (
        f"own_public_key={'01' * 32}\nlisten_port=51820\nfwmark=9\n"
        f"public_key={KEY_A.hex()}\nendpoint=[fd00::9]:7\nlast_handshake_time_sec=1500000000\n"
        "last_handshake_time_nsec=1\ntx_bytes=4\nrx_bytes=3\npersistent_keepalive_interval=25\nprotocol_version=1\n"
        "allowed_ip=10.0.0.0/8\nallowed_ip=fd00::/8\n"
        f"public_key={KEY_B.hex()}\nendpoint=[fd00::9]:7\nlast_handshake_time_sec=1500000000\n"
        "last_handshake_time_nsec=1\ntx_bytes=4\nrx_bytes=3\npersistent_keepalive_interval=25\nprotocol_version=1\n"
        "errno=0\n\n"
    )
