"""The files of wrapped PSKs: found beside the gateway file, read whole or not at all, shared by no two peers."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from tests.unit.config.samples import GOOD
from wghsm.config import ConfigError, PskWrapped, format_wrapped, load, load_text, read_wrapped, read_wrapped_files

if TYPE_CHECKING:
    from pathlib import Path

_WRAPPED = GOOD.replace("  psk_root", "  psk_wrap_key: wrap\n  psk_root")


def _two(first: str, second: str) -> str:
    return _WRAPPED.replace("preshared_key: derived", f"preshared_key: {first}").replace(
        "preshared_key: none", f"preshared_key: {second}"
    )


def test_the_file_stands_beside_the_gateway_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gw.yaml").write_text(_two("wrapped:keys/alice.psk", f"wrapped:{tmp_path}/bob.psk"))
    monkeypatch.chdir(tmp_path)
    peers = load("gw.yaml").peers
    assert [peer.preshared_key for peer in peers] == [
        PskWrapped(tmp_path / "keys/alice.psk"),
        PskWrapped(tmp_path / "bob.psk"),
    ]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("object:same", "object:same", "two peers with one label"),
        ("wrapped:a.psk", "wrapped:./a.psk", "two peers with one file"),
    ],
)
def test_two_peers_never_share(first: str, second: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(_two(first, second), "gw.yaml")
    (problem,) = caught.value.problems
    assert problem.line == 24
    assert f"{message} for their pre-shared keys; the other is on line 18" in problem.message


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "alice.psk"
    entries = [(2**32 - 1, bytes(range(60))), (0, bytes(60))]
    path.write_text(format_wrapped(list(reversed(entries)), "alice"))
    assert read_wrapped(path) == entries


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 0, "no wrapped"),
        ("# only words\n", 0, "no wrapped"),
        ("v2 1 AAAA\n", 1, "this is no wrapped"),
        ("# x\nv1 1 AAAA\n", 2, "this is no wrapped"),
        (f"v1 -1 {base64.b64encode(bytes(60)).decode()}\n", 1, "this is no wrapped"),
        (f"v1 4294967296 {base64.b64encode(bytes(60)).decode()}\n", 1, "this is no wrapped"),
        (f"v1 7 {base64.b64encode(bytes(60)).decode()}\n" * 2, 2, "epoch 7 stands twice"),
        ("\xff", 1, "this is no wrapped"),
    ],
)
def test_a_bad_file_is_told_by_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = tmp_path / "alice.psk"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        read_wrapped(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(path), line)
    assert message in problem.message


def test_every_file_that_is_missing_is_told(tmp_path: Path) -> None:
    (tmp_path / "gw.yaml").write_text(_two("wrapped:alice.psk", "wrapped:bob.psk"))
    gateway = load(tmp_path / "gw.yaml")
    with pytest.raises(ConfigError) as caught:
        read_wrapped_files(gateway)
    assert [problem.file for problem in caught.value.problems] == [str(tmp_path / f"{n}.psk") for n in ("alice", "bob")]
    for name in ("alice", "bob"):
        (tmp_path / f"{name}.psk").write_text(format_wrapped([(1, bytes(60))], name))
    assert read_wrapped_files(gateway) == {tmp_path / f"{n}.psk": [(1, bytes(60))] for n in ("alice", "bob")}
