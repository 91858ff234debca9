"""`key` and `previous_key` changed in the text of a gateway file: nothing else in it moves."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.cli._key_file import changed_keys, with_keys, without_previous
from wghsm.cli._output import CommandError
from wghsm.config import load_text

_HEAD = "version: 1  # one\ntoken: {uri: 'pkcs11:?module-path=/m.so'}\n"
_TAIL = "# the peers\npeers: []  # none yet\n"
_BLOCK = """\
interface:
    name: wg0     # the name
    key: old      # made in May
    # a line between
    mtu: 1420
"""
_STYLES = {
    "block": (_BLOCK, _BLOCK.replace("key: old ", "key: new ").replace("May\n", "May\n    previous_key: old\n")),
    "flow": ("interface: {key: old, name: wg0}\n", "interface: {key: new, previous_key: old, name: wg0}\n"),
    "flow, last": ("interface: {name: wg0, key: old}\n", "interface: {name: wg0, key: new, previous_key: old}\n"),
    "flow, comma at the end": (
        "interface: {\n  name: wg0,\n  key: old,  # made in May\n}\n",
        "interface: {\n  name: wg0,\n  key: new, previous_key: old,  # made in May\n}\n",
    ),
    "flow, comments": (
        "interface: {\n  name: wg0,  # a, b\n  key: old  # made in May\n}\n",
        "interface: {\n  name: wg0,  # a, b\n  key: new, previous_key: old  # made in May\n}\n",
    ),
    "quotes": (
        'interface:\n  key:   "old"   # made in May\n  name: wg0\n',
        'interface:\n  key:   "new"   # made in May\n  previous_key: "old"\n  name: wg0\n',
    ),
    "last of the file": ("interface:\n  name: wg0\n  key: old\n", None),
}


@pytest.mark.parametrize("style", _STYLES)
def test_a_key_is_rotated_and_the_one_before_it_retired(style: str) -> None:
    section, rotated = _STYLES[style]
    text = _HEAD + section + _TAIL
    changed = changed_keys(text, "gw.yaml", "new", "old")
    if rotated is not None:
        assert changed == _HEAD + rotated + _TAIL
    assert changed_keys(changed, "gw.yaml", "new", None) == text.replace("old", "new")


def test_a_file_in_json_stays_json() -> None:
    said = {
        "version": 1,
        "token": {"uri": "pkcs11:?module-path=/m.so"},
        "interface": {"name": "wg0", "key": "old"},
        "peers": [],
    }
    for indent in (None, 2):
        text = json.dumps(said, indent=indent)
        changed = changed_keys(text, "gw.json", "new", "old")
        assert json.loads(changed)["interface"] == {"name": "wg0", "key": "new", "previous_key": "old"}
        assert changed_keys(changed, "gw.json", "new", None) == text.replace("old", "new")


def test_a_previous_key_on_a_line_of_its_own_goes_with_its_comment() -> None:
    for section, left in (
        ("interface:\n  previous_key: a  # old\n  key: b\n  name: wg0\n", "interface:\n  key: b\n  name: wg0\n"),
        ("interface:\n  key: b\n  name: wg0\n  previous_key: a\n", "interface:\n  key: b\n  name: wg0\n"),
        ("interface: {previous_key: a, key: b, name: wg0}\n", "interface: {key: b, name: wg0}\n"),
        ("interface: {key: b, name: wg0, previous_key: a }\n", "interface: {key: b, name: wg0}\n"),
        (
            "interface: {\n  key: b,  # now\n  name: wg0,  # it, too\n  previous_key: a  # before\n}\n",
            "interface: {\n  key: b,  # now\n  name: wg0  # it, too\n}\n",
        ),
        (
            "interface: {\n  key: b,  # now\n  name: wg0,\n  previous_key: a,  # before\n}\n",
            "interface: {\n  key: b,  # now\n  name: wg0,\n}\n",
        ),
    ):
        assert changed_keys(_HEAD + section + _TAIL, "gw.yaml", "b", None) == _HEAD + left + _TAIL


def test_the_file_may_have_a_mark_of_byte_order_no_last_line_end_and_the_ends_of_other_systems() -> None:
    text = ("\ufeff" + _HEAD + "interface:\n  name: wg0\n  key: old").replace("\n", "\r\n")
    changed = changed_keys(text, "gw.yaml", "new", "old")
    assert changed == text.replace("old", "new") + "\r\n  previous_key: old\r\n"
    assert changed_keys(changed, "gw.yaml", "new", None) == text.replace("old", "new") + "\r\n"


def test_what_cannot_be_changed_safely_is_left_to_the_operator() -> None:
    for section in (
        "interface:\n  name: wg0\n  key: |-\n    old\n",
        "interface:\n  name: wg0\n  ? key\n  : old\n",
    ):
        with pytest.raises(CommandError, match="write key: new, previous_key: old on lines of their own"):
            changed_keys(_HEAD + section + _TAIL, "gw.yaml", "new", "old")


_LABELS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=30)


@given(st.lists(_LABELS, min_size=2, max_size=2, unique=True), st.sampled_from(list(_STYLES)))
def test_any_labels(labels: list[str], style: str) -> None:
    new, old = labels
    text = _HEAD + _STYLES[style][0] + _TAIL
    before = load_text(with_keys(text, old, None)).interface
    assert before.key == old
    changed = changed_keys(with_keys(text, old, None), "gw.yaml", new, old)
    after = load_text(changed).interface
    assert (after.key, after.previous_key, after.name) == (new, old, before.name)
    assert load_text(without_previous(changed)).interface.key == new
