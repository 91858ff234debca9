"""The quick way of reading a gateway file: what it takes, the exact way takes alike; the rest it leaves to that one."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings

from tests.unit.config.samples import GOOD, key
from tests.unit.config.test_properties import EDITS, SLOW, gateways
from wghsm.config import ConfigError, Problem, _load, load, load_text
from wghsm.config._quick import lined, quick
from wghsm.config._yaml import Scalar, parse

UNUSUAL = (
    "",
    "a: &x 1",
    "a: &x [1]",
    "a: *x",
    "a: !tag 1",
    "a: !tag {b: 1}",
    "!tag a: 1",
    "a: 1\na: 2",
    "{a: 1, a: 2}",
    "---\na: 1\n---\nb: 2",
    "[a]: 1",
    "&x a: 1",
    "%YAML 1.1\n---\na: 1",
    "a:\tb",
    "a: 'b\u2028c'",
    "a: 'b\x85c'",
    "\ufeffa: 1",
    "a: \x07",
    "a: \0",
    'a: "\\ud83d\\ude00"',
    "a: [",
    "&a: b",
    "a: [&9:,]",
    "a: {!.m,\n n: }",
    "a: >#b\n c\n",
    "a: |2-# b\n  c\n",
    '{"a":1}',
    "['a':~]",
    "a: b: c",
    "[" * 2000,
    "- " * 2000 + "a",
)


@pytest.mark.parametrize("text", UNUSUAL)
def test_the_unusual_is_left_to_the_exact_way(text: str) -> None:
    assert quick(text).faults
    assert lined(text) == parse(text)


def test_the_tree_is_plain_text() -> None:
    tree = quick("a: [no, 'no', \"0x1\", ~]\nb: {c: }\n").root
    assert tree == {
        "a": [Scalar("no", plain=True), Scalar("no", plain=False), Scalar("0x1", plain=False), Scalar("~", plain=True)],
        "b": {"c": Scalar("", plain=True)},
    }


def agree(text: str) -> None:
    """What the quick way takes, the exact way takes as the same; with lines both are the same whatever it is."""
    found, exact = quick(text), parse(text)
    if not found.faults:
        assert not exact.faults
        assert exact.root == found.root
    assert lined(text) == exact


@settings(SLOW, max_examples=300)
@given(EDITS)
def test_both_see_the_same_in_a_mutated_file(edits: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for start, length, new in edits:
        text = text[:start] + new + text[start + length :]
    agree(text)


@SLOW
@given(gateways())
@example(json.loads("{}"))
def test_both_see_the_same_in_a_good_file(raw: dict[str, Any]) -> None:
    for indent in (None, 1):
        text = json.dumps(raw, ensure_ascii=False, indent=indent)
        assert not quick(text).faults
        agree(text)


@pytest.mark.parametrize(
    "text", ["a: |\n  b\n  c\n", "a: >-\n  b\n\n  c\n", "? a\n: b\n", "a: b # c\n", "a: 'b''c'\r\n"]
)
def test_both_see_the_same_in_other_spellings(text: str) -> None:
    assert not quick(text).faults
    agree(text)


def test_a_good_file_is_never_read_the_exact_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_text: str) -> None:
        raise AssertionError("the exact way is not needed")

    monkeypatch.setattr(_load, "lined", refuse)
    assert load_text(GOOD).peers
    (tmp_path / "more").mkdir()
    more = f"peers: [{{name: x, public_key: {key(70)}, preshared_key: none, allowed_ips: []}}]"
    (tmp_path / "more/x.yaml").write_text(more)
    file = tmp_path / "gateway.yaml"
    file.write_text(GOOD + "include: [more]\n")
    assert load(file).peers[-1].name == "x"


def test_without_libyaml_a_good_file_is_read_the_exact_way(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_text(GOOD)
    monkeypatch.setattr("wghsm.config._quick.CParser", None)
    assert quick(GOOD).faults
    assert lined(GOOD) == parse(GOOD)
    assert load_text(GOOD) == expected


def test_a_fault_is_told_with_its_line_and_warnings_once(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    other = tmp_path / "more/x.yaml"
    other.write_text("peers:\n  - name: x\n")
    other.chmod(0o666)
    file = tmp_path / "gateway.yaml"
    file.write_text(GOOD + "include: [more]\n")
    file.chmod(0o666)
    warned: list[Problem] = []
    with pytest.raises(ConfigError) as caught:
        load(file, warned.append)
    assert [each.file for each in warned] == [str(file), str(other)]
    assert {(each.file, each.line) for each in caught.value.problems} == {(str(other), 2)}
