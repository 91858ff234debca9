"""`wghsm psk wrap|rotate|export|list --peers` as an operator runs them, with a token in a store of another uid."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.json_output import check_json
from wghsm.config import load, read_wrapped
from wghsm.exits import ExitCode
from wghsm.softhsm_setup import SoftHsmToken, softhsm_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PSK = base64.b64encode(bytes(range(32)))
_NEXT = base64.b64encode(bytes(range(1, 33)))


@pytest.fixture(scope="module")
def made() -> Iterator[SoftHsmToken]:
    with softhsm_token(label="gw", uid=61100) as token:
        yield token


@pytest.fixture(scope="module")
def keys(made: SoftHsmToken, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gateway file that has been used to make the keys in the token."""
    path = _write(made, tmp_path_factory.mktemp("keys"))
    for words in (["key", "generate"], ["psk", "derive-root"], ["psk", "wrap", "--make-key"]):
        done = _run(made, *words, "-c", str(path))
        assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def gateway(made: SoftHsmToken, keys: Path, tmp_path: Path) -> Path:
    assert keys.exists()
    return _write(made, tmp_path)


def _write(made: SoftHsmToken, folder: Path) -> Path:
    names = ("alice", "bob", "carol", "dora")
    public = [base64.b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw()).decode() for _ in names]
    path = folder / "gw.yaml"
    path.write_text(
        f"""\
# The gateway of the tests.
version: 1
state_directory: {folder}/state
token: {{uri: "{made.uri}", psk_root: root, psk_wrap_key: wrap, psk_overlap: 36h}}  # one line
interface:
    name: wg0
    key: gateway
peers:
- name: alice   # comments stay
  public_key: {public[0]}
  preshared_key:   "derived"   # rotated last in May
  allowed_ips: [10.8.0.2/32]
-   allowed_ips:
    - 10.8.0.3/32
    preshared_key: wrapped:bob.psk
    public_key: {public[1]}
    name: bob
- {{name: carol, public_key: {public[2]}, preshared_key: derived:41, allowed_ips: []}}
- {{name: dora, public_key: {public[3]}, preshared_key: none, allowed_ips: []}}
"""
    )
    return path


def _run(made: SoftHsmToken, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", *words],
        env={**os.environ, **made.environment},
        input=given,
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    check_json(words, done.stdout)
    return done


def _psk(made: SoftHsmToken, gateway: Path, verb: str, *words: str, given: bytes = b"") -> bytes:
    done = _run(made, "psk", verb, *words, "-c", str(gateway), given=given)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _refused(made: SoftHsmToken, gateway: Path, *words: str, given: bytes = b"") -> str:
    done = _run(made, "psk", *words, "-c", str(gateway), given=given)
    assert done.returncode == ExitCode.BAD_CONFIG
    (line,) = done.stderr.decode().splitlines()
    return line


def test_rotate_changes_one_word_of_the_file(made: SoftHsmToken, gateway: Path) -> None:
    gateway.chmod(0o640)
    before = gateway.read_text()
    shown = _psk(made, gateway, "rotate", "alice").decode()
    assert "epoch 1 now" in shown
    assert "epoch 0 stays usable for 36 hours" in shown
    assert gateway.read_text() == before.replace('"derived"', "derived:1")
    assert stat.S_IMODE(gateway.stat().st_mode) == 0o640
    assert json.loads(_psk(made, gateway, "rotate", "carol", "--json")) == {
        "peer": "carol",
        "epoch": 42,
        "previous": 41,
        "overlap_seconds": 36 * 3600,
    }
    assert gateway.read_text() == before.replace('"derived"', "derived:1").replace("derived:41", "derived:42")
    assert sorted(path.name for path in gateway.parent.iterdir()) == ["gw.yaml"]


def test_rotations_at_the_same_time_are_all_counted(gateway: Path) -> None:
    words = [sys.executable, "-m", "wghsm", "psk", "rotate", "alice", "-c", str(gateway)]
    running = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(4)]
    assert [each.wait() for each in running] == [0] * 4
    assert "derived:4   # rotated last in May" in gateway.read_text()


def test_what_has_no_epochs_is_not_rotated(made: SoftHsmToken, gateway: Path) -> None:
    before = gateway.read_text()
    assert "wghsm psk wrap bob" in _refused(made, gateway, "rotate", "bob")
    assert "no derived PSK" in _refused(made, gateway, "rotate", "dora")
    assert "no peer 'eve'" in _refused(made, gateway, "rotate", "eve")
    assert gateway.read_text() == before


def test_a_derived_psk_changes_with_its_epoch(made: SoftHsmToken, gateway: Path) -> None:
    first = _psk(made, gateway, "export", "alice", "--out", "-")
    _psk(made, gateway, "rotate", "alice")
    second = _psk(made, gateway, "export", "alice", "--out", "-")
    assert first != second
    assert _psk(made, gateway, "export", "alice", "--epoch", "0", "--out", "-") == first


def test_a_wrapped_psk_comes_out_as_it_went_in(made: SoftHsmToken, gateway: Path) -> None:
    file = gateway.parent / "bob.psk"
    assert _run(made, "check", str(gateway)).returncode == ExitCode.BAD_CONFIG
    report = json.loads(_psk(made, gateway, "wrap", "bob", "--json", given=_PSK + b"\n"))
    assert report == {"peer": "bob", "epoch": 0, "file": str(file), "previous": None}
    assert _run(made, "check", str(gateway)).returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert bytes(range(32)) not in base64.b64decode(file.read_text().split()[-1])
    assert _psk(made, gateway, "export", "bob", "--out", "-") == _PSK + b"\n"

    _psk(made, gateway, "wrap", "bob", given=_NEXT)
    assert [epoch for epoch, _ in read_wrapped(file)] == [1, 0]
    assert _psk(made, gateway, "export", "bob", "--out", "-") == _NEXT + b"\n"
    assert _psk(made, gateway, "export", "bob", "--epoch", "0", "--out", "-") == _PSK + b"\n"
    _psk(made, gateway, "wrap", "bob", "--generate")
    assert [epoch for epoch, _ in read_wrapped(file)] == [2, 1]
    fresh = _psk(made, gateway, "export", "bob", "--out", "-")
    assert fresh not in (_PSK + b"\n", _NEXT + b"\n")
    assert len(base64.b64decode(fresh)) == 32
    assert "epoch 2 already" in _refused(made, gateway, "wrap", "bob", "--epoch", "2", given=_PSK)
    assert "there is: 1, 2" in _refused(made, gateway, "export", "bob", "--epoch", "0", "--out", "-")


def test_a_wrapped_psk_is_bound_to_peer_and_epoch(made: SoftHsmToken, gateway: Path) -> None:
    file = gateway.parent / "bob.psk"
    _psk(made, gateway, "wrap", "bob", given=_PSK)
    text = file.read_text()
    for changed in (
        text.replace("v1 0", "v1 1"),
        text[:-6] + ("AAAA" if text[-6:-2] != "AAAA" else "BBBB") + text[-2:],
    ):
        file.write_text(changed)
        done = _run(made, "psk", "export", "bob", "-c", str(gateway), "--out", "-")
        assert done.returncode == ExitCode.TOKEN_UNUSABLE, done.stderr
        assert b"does not open" in done.stderr
    file.write_text(text)
    other = (
        gateway.read_text().replace("name: bob", "name: eve").replace("preshared_key: none", "preshared_key: derived")
    )
    key = base64.b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    bob = next(peer for peer in load(gateway).peers if peer.name == "bob")
    gateway.write_text(other.replace(base64.b64encode(bob.public_key).decode(), key))
    done = _run(made, "psk", "export", "eve", "-c", str(gateway), "--out", "-")
    assert done.returncode == ExitCode.TOKEN_UNUSABLE
    assert b"does not open" in done.stderr


def test_the_wrapping_key_cannot_be_read(made: SoftHsmToken, keys: Path) -> None:
    listed = json.loads(_run(made, "psk", "list", "-c", str(keys), "--json").stdout)
    (wrap,) = [secret for secret in listed if secret["label"] == "wrap"]
    assert (wrap["attributes"]["SENSITIVE"], wrap["attributes"]["EXTRACTABLE"]) == (True, False)
    assert [use for use in ("ENCRYPT", "DECRYPT", "WRAP", "UNWRAP", "SIGN", "DERIVE") if wrap["attributes"][use]] == [
        "ENCRYPT",
        "DECRYPT",
    ]
    again = _run(made, "psk", "wrap", "--make-key", "-c", str(keys))
    assert again.returncode == ExitCode.FAILURE
    assert b"nothing was changed" in again.stderr


def test_what_cannot_be_wrapped_leaves_no_file(made: SoftHsmToken, gateway: Path) -> None:
    assert "no wrapped PSK" in _refused(made, gateway, "wrap", "alice", given=_PSK)
    assert "44 characters" in _refused(made, gateway, "wrap", "bob", given=b"short\n")
    assert "name the peer" in _refused(made, gateway, "wrap")
    assert "--make-key" in _refused(made, gateway, "wrap", "bob", "--make-key")
    assert not (gateway.parent / "bob.psk").exists()


def test_exports_are_recorded_without_the_psk(made: SoftHsmToken, gateway: Path) -> None:
    record = gateway.parent / "state" / "psk-exports.jsonl"
    _psk(made, gateway, "wrap", "bob", given=_PSK)

    def distributed() -> list[bool]:
        return [peer["distributed"] for peer in json.loads(_psk(made, gateway, "list", "--peers", "--json"))]

    assert distributed() == [False] * 4
    there = gateway.parent / "there"
    there.touch()
    for out in (there, gateway.parent / "no" / "folder"):
        refused = _run(made, "psk", "export", "alice", "-c", str(gateway), "--out", str(out))
        assert refused.returncode == ExitCode.FAILURE
        assert str(there if out == there else out.parent) in refused.stderr.decode()
    assert not record.exists()
    for name in ("alice", "bob", "carol"):
        _psk(made, gateway, "export", name, "--out", str(gateway.parent / f"{name}.out"))
    assert distributed() == [True, True, True, False]
    _psk(made, gateway, "rotate", "carol")
    assert distributed() == [True, True, False, False]
    text = record.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["peer"], line["kind"], line["epoch"], line["uid"], line["to"]) for line in lines] == [
        ("alice", "derived", 0, os.getuid(), "file"),
        ("bob", "wrapped", 0, os.getuid(), "file"),
        ("carol", "derived", 41, os.getuid(), "file"),
    ]
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    for name in ("alice", "bob", "carol"):
        assert (gateway.parent / f"{name}.out").read_text().strip() not in text
    shown = _psk(made, gateway, "list", "--peers").decode().splitlines()
    assert [re.split("  +", line)[:4] for line in shown] == [
        ["PEER", "PSK", "EPOCH", "STATE"],
        ["alice", "derived", "0", "distributed"],
        ["bob", "wrapped", "0", "distributed"],
        ["carol", "derived", "42", "not distributed"],
        ["dora", "none", "-", "-"],
    ]


def test_an_export_without_a_gateway_file_is_recorded_too(made: SoftHsmToken, gateway: Path) -> None:
    record = gateway.parent / "state" / "psk-exports.jsonl"
    gateway.write_text(gateway.read_text().replace("wrapped:bob.psk", "object:bob-object"))
    alice, bob, *_ = (base64.b64encode(peer.public_key).decode() for peer in load(gateway, warn=lambda _: None).peers)
    stored = _run(made, "psk", "put", "bob-object", "--replace", "--token", made.uri, given=_PSK)
    assert stored.returncode == 0, stored.stderr

    def states() -> list[bool]:
        return [peer["distributed"] for peer in json.loads(_psk(made, gateway, "list", "--peers", "--json"))]

    def export(*words: str) -> None:
        done = _run(made, "psk", "export", *words, "--out", "-", "--record", str(record), "--token", made.uri)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().decode() not in record.read_text()

    labels = ("--root", "root", "--key", "gateway")
    # Another epoch, another peer's: not what the file says.
    export(alice, *labels, "--epoch", "7")
    export(bob, *labels)
    assert states() == [False] * 4
    export(alice, *labels)
    assert states() == [True, False, False, False]
    export("--object", "bob-object")
    assert states() == [True, True, False, False]
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(line["kind"], line["public_key"], line["epoch"]) for line in lines] == [
        ("derived", alice, 7),
        ("derived", bob, 0),
        ("derived", alice, 0),
        ("object", "", None),
    ]
    assert {line["token"] for line in lines} == {"token 'gw'"}


def test_a_psk_object_named_beside_the_gateway_file_is_recorded(made: SoftHsmToken, gateway: Path) -> None:
    gateway.write_text(gateway.read_text().replace("wrapped:bob.psk", "object:bob-object"))
    for label in ("bob-object", "nobodys-object"):
        assert _run(made, "psk", "put", label, "--replace", "--token", made.uri, given=_PSK).returncode == 0
        _psk(made, gateway, "export", "--object", label, "--out", "-")
    lines = (gateway.parent / "state" / "psk-exports.jsonl").read_text().splitlines()
    assert [(line["peer"], line["object"]) for line in map(json.loads, lines)] == [
        ("bob", "bob-object"),
        (None, "nobodys-object"),
    ]
    shown = _psk(made, gateway, "list", "--peers").decode().splitlines()
    states = [re.split("  +", line)[3] for line in shown[1:]]
    assert states == ["not distributed", "distributed", "not distributed", "-"]


def test_a_psk_object_that_was_replaced_is_not_distributed(made: SoftHsmToken, gateway: Path) -> None:
    gateway.write_text(gateway.read_text().replace("wrapped:bob.psk", "object:bob-again"))

    def bob() -> tuple[bool, bool]:
        peer = json.loads(_psk(made, gateway, "list", "--peers", "--json"))[1]
        return peer["distributed"], bool(peer["last_export"])

    _psk(made, gateway, "put", "bob-again", given=_PSK)
    assert bob() == (False, False)
    _psk(made, gateway, "export", "alice", "--out", "-")
    _psk(made, gateway, "export", "bob", "--out", "-")
    assert bob() == (True, True)
    # Refused: what was handed out is still what is in the token.
    assert _run(made, "psk", "put", "bob-again", "-c", str(gateway), given=_PSK).returncode == ExitCode.FAILURE
    assert bob() == (True, True)
    _psk(made, gateway, "put", "bob-again", "--replace", given=_PSK)
    assert bob()[0] is False
    assert json.loads(_psk(made, gateway, "list", "--peers", "--json"))[0]["distributed"]
    _psk(made, gateway, "export", "bob", "--out", "-")
    assert bob() == (True, True)


def test_a_derived_psk_of_another_key_of_the_gateway_was_not_handed_out(made: SoftHsmToken, gateway: Path) -> None:
    _psk(made, gateway, "wrap", "bob", given=_PSK)
    for name in ("alice", "bob"):
        _psk(made, gateway, "export", name, "--out", "-")
    gateway.write_text(gateway.read_text().replace("key: gateway", "key: gateway-2"))
    alice, bob, *_ = json.loads(_psk(made, gateway, "list", "--peers", "--json"))
    assert (alice["distributed"], bool(alice["last_export"])) == (False, True)
    # A wrapped one is what it was.
    assert bob["distributed"] is True


def test_nothing_is_handed_out_that_cannot_be_recorded(made: SoftHsmToken, gateway: Path) -> None:
    (gateway.parent / "state").write_text("no folder")
    out = gateway.parent / "alice.out"
    done = _run(made, "psk", "export", "alice", "-c", str(gateway), "--out", str(out))
    assert done.returncode == ExitCode.FAILURE
    assert b"nothing was handed out" in done.stderr
    assert not out.exists()
    assert not done.stdout
    nowhere = ("--record", str(gateway.parent / "state" / "record"), "--token", made.uri, "--out", "-")
    key = base64.b64encode(load(gateway).peers[0].public_key).decode()
    done = _run(made, "psk", "export", key, "--root", "root", "--key", "gateway", *nowhere)
    assert done.returncode == ExitCode.FAILURE
    assert b"nothing was handed out" in done.stderr
    assert not done.stdout
