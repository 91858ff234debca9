"""Edits of a gateway file's text: the peer that was meant, and not a comment, line or blank elsewhere."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.config.samples import GOOD, KEY_C, key
from tests.unit.config.test_properties import LABELS
from wghsm.config import Gateway, load_text, to_document, with_fields, with_peer, without_peer
from wghsm.config._edit import Value

SLOW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NEW: dict[str, Value] = {
    "name": "carol",
    "public_key": KEY_C,
    "preshared_key": "none",
    "allowed_ips": ["10.8.0.9/32", "fd08::9/128"],
}
HEAD = GOOD[: GOOD.index("peers:")]
NAMES = LABELS | st.sampled_from(
    ["null", "true", "~", "a: b", "# no", "- x", "[", "'", '"', "a, b", "12", "{a}", "off", "a#b"]
)
NOTES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=60).filter(
    str.isprintable
)

LAYOUTS = {
    "block": """\
# before
peers:   # the peers

  # alice's
  - name: alice   # first
    # her key
    public_key: KEY1
    preshared_key: derived
    tags:
      - a   # one
      - b
    allowed_ips: ["10.8.0.2/32"]

  # bob's
  - name: bob
    public_key: KEY2
    preshared_key: none
    allowed_ips:
      - 10.8.0.3/32   # last
# after
psk: optional
""",
    "dash at the margin": """\
peers:
-   name: alice
    public_key: KEY1
    preshared_key: derived
    allowed_ips: []
-
    # bob - the other
    name: bob
    public_key: KEY2
    preshared_key: none
    allowed_ips: []""",
    "flow": """\
peers: [{name: alice, public_key: KEY1, preshared_key: derived, allowed_ips: []},   # alice
  {name: bob, public_key: KEY2, preshared_key: none, allowed_ips: []}]   # the end
psk: optional
""",
    "flow in block": """\
peers:
  - {name: alice, public_key: KEY1, preshared_key: derived, allowed_ips: []}   # alice
  - {name: bob, public_key: KEY2, preshared_key: none, allowed_ips: []}
""",
}


def laid_out(name: str) -> str:
    return HEAD + LAYOUTS[name].replace("KEY1", key(1)).replace("KEY2", key(2))


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


def shown(gateway: Gateway) -> dict[str, Any]:
    return to_document(gateway)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_peer_more_leaves_all_else(layout: str, newline: str) -> None:
    text = laid_out(layout).replace("\n", newline)
    before, after = load_text(text), with_peer(text, NEW)
    loaded = load_text(after)
    assert shown(loaded.model_copy(update={"peers": loaded.peers[:-1]})) == shown(before)
    assert loaded.peers[-1].name == "carol"
    assert comments(after) == comments(text)
    if newline == "\r\n":
        assert after.count("\n") == after.count("\r\n")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("position", [0, 1])
def test_a_peer_less_leaves_all_else(layout: str, position: int) -> None:
    text = laid_out(layout)
    after = without_peer(text, position)
    before, loaded = load_text(text), load_text(after)
    assert [peer.name for peer in loaded.peers] == [["bob"], ["alice"]][position]
    assert shown(loaded.model_copy(update={"peers": before.peers})) == shown(before)
    assert load_text(with_peer(without_peer(after, 0), NEW)).peers[0].name == "carol"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("position", [0, 1])
def test_keys_are_set_and_taken_out_again(layout: str, position: int) -> None:
    text = laid_out(layout)
    fields: dict[str, Value] = {
        "disabled": True,
        "note": "off: duty, #1",
        "expires": "2027-03-31",
        "tags": ["phone", "x"],
    }
    changed = with_fields(text, position, fields)
    peer = load_text(changed).peers[position]
    assert (peer.disabled, peer.note, peer.tags) == (True, "off: duty, #1", ("phone", "x"))
    assert load_text(changed).peers[1 - position] == load_text(text).peers[1 - position]
    again = with_fields(changed, position, {"note": "other", "disabled": False, "tags": ["y"]})
    assert load_text(again).peers[position].note == "other"
    back = with_fields(again, position, dict.fromkeys(fields))
    if position or layout != "block":
        assert back == text + ("\n" if text[-1] != "\n" and position else "")
    assert with_fields(back, position, {"note": None}) == back


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_first_key_of_a_peer_can_go(layout: str) -> None:
    text = with_fields(laid_out(layout), 0, {"note": "n"})
    lines = text.replace("name: alice", "NAME").replace("note: n", "name: alice").replace("NAME", "note: n")
    lines = lines.replace('note: "n"', "name: alice").replace('"n"', "n")
    if load_text(lines).peers[0].note == "n":
        after = with_fields(lines, 0, {"note": None})
        assert load_text(after).peers == load_text(laid_out(layout)).peers


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "peers:\n",
        "peers: ~   # none yet\n",
        "peers: []  # none yet\npsk: optional\n",
        "peers:\n# comment\n\npsk: optional\n",
        "peers: [\n  # none\n]\n",
        "psk: optional  # no newline",
    ],
)
def test_the_first_peer_of_a_file(tail: str) -> None:
    after = with_peer(HEAD + tail, NEW)
    assert [peer.name for peer in load_text(after).peers] == ["carol"]
    assert comments(after) == comments(HEAD + tail)


def test_a_file_of_peers_may_be_empty() -> None:
    for text in ("", "# phones\n", "peers:\n", "peers: []\n"):
        after = with_peer(text, NEW)
        assert after.startswith(text[:2])
        assert load_text(HEAD + after).peers[0].name == "carol"


def test_a_byte_order_mark_stays() -> None:
    text = "\ufeff" + GOOD
    for edit in EDITS:
        assert edit(text).startswith("\ufeff")
        assert edit(text)[1:] == edit(GOOD)


EDITS: list[Callable[[str], str]] = [
    lambda text: with_peer(text, NEW),
    lambda text: with_fields(text, 1, {"name": "robert"}),
    lambda text: without_peer(text, 0),
]


def test_json_stays_json() -> None:
    document = {
        "version": 1,
        "token": {"uri": "pkcs11:token=gw?module-path=/m.so"},
        "interface": {"name": "wg0", "key": "gateway"},
    }
    first = {**NEW, "name": "first", "public_key": key(9), "allowed_ips": []}
    tails: list[dict[str, list[Any]]] = [{}, {"peers": []}, {"peers": [first]}]
    for tail in tails:
        after = with_peer(json.dumps({**document, **tail}), NEW)
        assert json.loads(after)["peers"][-1] == NEW
        assert json.loads(with_fields(after, -1, {"note": "n", "tags": ["x"]}))["peers"][-1]["note"] == "n"
        assert json.loads(without_peer(after, len(tail.get("peers", ())))).get("peers") == tail.get("peers", [])


@SLOW
@given(
    NAMES,
    NOTES,
    st.lists(st.from_regex(r"[\w.-]{1,9}", fullmatch=True), max_size=3, unique=True),
    st.sampled_from(sorted(LAYOUTS)),
)
def test_every_value_comes_back_as_it_was_meant(name: str, note: str, tags: list[str], layout: str) -> None:
    text = laid_out(layout)
    if name.strip() != name or not name or "/" in name:
        name = "x"
    added = load_text(with_peer(text, {**NEW, "name": name, "note": note, "tags": tags}))
    assert (added.peers[-1].name, added.peers[-1].note, added.peers[-1].tags) == (name, note, tuple(tags))
    changed = load_text(with_fields(text, 1, {"name": name, "note": note, "tags": tags}))
    assert (changed.peers[1].name, changed.peers[1].note, changed.peers[1].tags) == (name, note, tuple(tags))
    assert changed.peers[0] == load_text(text).peers[0]


def test_only_lines_of_the_peer_change() -> None:
    text = laid_out("block")
    after = with_fields(text, 0, {"disabled": True})
    assert [line for line in after.splitlines() if line not in text.splitlines()] == ["    disabled: true"]
    after = with_fields(text, 0, {"tags": ["c"]})
    assert "    tags: [c]\n" in after
