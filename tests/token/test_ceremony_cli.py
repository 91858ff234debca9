"""`wghsm ceremony` as people hold it: at a terminal, with a SoftHSM token, interrupted, and held against the token."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import copytree, rmtree
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.json_output import check_json
from tests.token.conftest import MODULES, NSS_MODULE
from tests.token.terminal import Terminal
from wghsm.audit import LogReader
from wghsm.ceremony import fingerprint, transcript_of
from wghsm.cli._ceremony_software import tree_hash
from wghsm.config import load
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenPool
from wghsm.pkcs11_backend._objects import CKA
from wghsm.softhsm_setup import find_module

if TYPE_CHECKING:
    from collections.abc import Iterator

SO = ("ada-half-71", "bram-half-82")
USER = ("Ada.user.93", "Bram.user.04")


@pytest.fixture
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wghsm-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        rmtree(folder)


def _gateway(place: Path, *labels: str, root: bool = True) -> Path:
    uris = [
        f"pkcs11:token={label}?module-path={find_module()}&pin-source=file:{place}/hsm/{label}.pin" for label in labels
    ]
    named = f'uri: "{uris[0]}"' if len(uris) == 1 else "uris: [" + ", ".join(f'"{uri}"' for uri in uris) + "]"
    made = ", psk_root: root, psk_wrap_key: wrap" if root else ""
    path = place / "wg0.yaml"
    path.write_text(
        f"version: 1\nstate_directory: {place}/state\ntoken: {{{named}{made}}}\n"
        f"interface: {{name: wg0, key: gateway}}\naudit: {{key: seal, directory: {place}/audit}}\n"
    )
    return path


def _begin(place: Path, gateway: Path, *words: str) -> Terminal:
    return Terminal(
        "ceremony",
        "-c",
        str(gateway),
        "--out",
        f"{place}/out",
        "--softhsm",
        f"{place}/hsm",
        *words,
    )


def _people(one: Terminal, entry: str = "halves") -> None:
    one.answer("Go on")
    one.answer("Name of person 1", "Ada Lindqvist")
    one.answer("here for", "key custodian 1")
    one.answer("Name of person 2", "Ada Lindqvist")
    one.answer("Name of person 2", "Bram de Wit")
    one.answer("here for", "key custodian 2")
    one.answer(r"Name of person 3", "")
    one.answer("PINs in", entry)


def _twice(one: Terminal, prompt: str, value: str) -> None:
    one.answer(rf"New {prompt}[^\n]*: ", value)
    one.answer("The same once more: ", value)


def _token(one: Terminal) -> None:
    one.answer("Go on")
    one.answer("first half of the SO PIN", "")
    one.answer("second half of the SO PIN", "")
    _twice(one, "first half of the SO PIN", SO[0])
    _twice(one, "second half of the SO PIN", SO[1])
    one.answer("first half of the user PIN", "2")
    one.answer("second half of the user PIN", "1")
    _twice(one, "first half of the user PIN", USER[0])
    _twice(one, "second half of the user PIN", USER[1])


def _run(place: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", *words],
        env={**os.environ, "SOFTHSM2_CONF": f"{place}/hsm/softhsm2.conf"},
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    check_json(words, done.stdout)
    return done


def _nothing_secret(place: Path, shown: str) -> None:
    for part in (*SO, *USER):
        assert part not in shown
        for path in (place / "out").rglob("*"):
            assert part.encode() not in path.read_bytes(), path


def test_a_ceremony_of_two_people(place: Path) -> None:
    gateway = _gateway(place, "gw")
    with _begin(place, gateway) as one:
        _people(one)
        one.answer("Go on")
        _token(one)
        for _ in range(5):
            one.answer("Go on")
        assert one.end() == ExitCode.OK
        _nothing_secret(place, one.seen)
    assert (place / "hsm/gw.pin").read_text() == "".join(USER) + "\n"
    assert not (place / "hsm/gw.so-pin").exists()
    assert sorted(path.name for path in (place / "out").iterdir()) == [
        "transcript.html",
        "transcript.json",
        "transcript.txt",
    ]
    text = (place / "out/transcript.json").read_bytes()
    then = transcript_of(text)
    assert [(person.name, person.role) for person in then.participants] == [
        ("Ada Lindqvist", "key custodian 1"),
        ("Bram de Wit", "key custodian 2"),
    ]
    (token,) = then.tokens
    assert (token.label, len(token.serial), token.module.path) == ("gw", 16, find_module())
    objects = {each.label: each for each in token.objects}
    assert {label: each.kind for label, each in objects.items()} == {
        "gateway": "key",
        "root": "psk-root",
        "wrap": "psk-wrap-key",
        "seal": "audit-key",
    }
    assert len(base64.b64decode(objects["gateway"].public_key or "")) == 32
    assert len(objects["root"].check_value or "") == 16
    assert objects["seal"].algorithm == "ed25519"
    assert objects["gateway"].attributes["NEVER_EXTRACTABLE"] is True
    assert {finding.level for finding in token.findings} <= {"green", "yellow"}
    assert fingerprint(text) in (place / "out/transcript.txt").read_text()
    records = [record for _, record in LogReader(place / "audit", "commands").new()]
    told = [(record.operation, record.key) for record in records if record.kind == "key.change"]
    assert told == [
        ("ceremony.people", ""),
        ("ceremony.software", ""),
        ("ceremony.token-1", ""),
        ("ceremony.gateway-key", "gateway"),
        ("ceremony.psk-root", "root"),
        ("ceremony.wrap-key", "wrap"),
        ("ceremony.audit-key-1", "seal"),
        ("ceremony.proof-1", ""),
    ]
    assert {record.detail["ceremony"] for record in records if record.kind == "key.change"} == {then.id}
    public = _run(place, "key", "public", "gateway", "-c", str(gateway)).stdout.decode().strip()
    assert objects["gateway"].public_key == public

    verify = ("ceremony", "verify", f"{place}/out/transcript.json")
    done = _run(place, *verify)
    assert done.returncode == ExitCode.OK, done.stdout
    assert fingerprint(text).encode() in done.stdout
    assert _run(place, "key", "generate", "later", "-c", str(gateway)).returncode == 0
    done = _run(place, *verify, "--json")
    assert done.returncode == ExitCode.OK
    assert [one["what"] for one in json.loads(done.stdout)["differences"]] == ["key 'later'"]
    assert _run(place, "psk", "destroy", "root", "--yes", "--token", load(gateway).token.in_order[0]).returncode == 0
    assert _run(place, "psk", "derive-root", "-c", str(gateway)).returncode == 0
    done = _run(place, *verify)
    assert done.returncode == ExitCode.DIFFERS
    assert b"psk-root 'root': check value" in done.stdout

    # Over is over: the folder is not written again.
    with _begin(place, gateway) as again:
        assert again.end() == ExitCode.FAILURE
        assert "a ceremony that is over" in again.seen


def test_it_goes_on_after_ctrl_c_and_after_a_power_cut(place: Path) -> None:
    gateway = _gateway(place, "gw")
    with _begin(place, gateway) as one:
        _people(one)
        one.expect("Go on")
        assert one.interrupt() == ExitCode.INTERRUPTED
        assert "The same command goes on from here" in one.seen
    with _begin(place, gateway) as one:
        one.expect("Going on with the ceremony .*; 1 steps are done")
        one.answer("Go on")
        _token(one)
        # The gateway's key
        one.answer("Go on")
        one.expect("its public key|Its public key")
        one.expect("Go on")
        one.kill()
    journal = json.loads((place / "out/ceremony.journal").read_text())
    # As if the power had gone after the token had made the root, and before that was noted.
    assert journal["begun"] == ""
    journal["begun"] = "psk-root"
    (place / "out/ceremony.journal").write_text(json.dumps(journal))
    assert _run(place, "psk", "derive-root", "-c", str(gateway)).returncode == 0
    with _begin(place, gateway) as one:
        one.expect("This step was interrupted before")
        one.answer("Go on")
        one.answer("Destroy 'root' and make it anew", "y")
        for _ in range(3):
            one.answer("Go on")
        assert one.end() == ExitCode.OK
    then = transcript_of((place / "out/transcript.json").read_bytes())
    assert len(then.sittings) == 3
    assert [step.name for step in then.steps] == [
        "people", "software", "token-1", "gateway-key", "psk-root", "wrap-key", "audit-key-1", "proof-1",
    ]  # fmt: skip
    assert _run(place, "ceremony", "verify", f"{place}/out/transcript.json").returncode == ExitCode.OK


def test_a_token_step_that_was_cut_short(place: Path) -> None:
    gateway = _gateway(place, "gw", root=False)
    with _begin(place, gateway) as one:
        _people(one)
        one.answer("Go on")
        _token(one)
        one.expect("Go on")
        one.kill()
    journal = json.loads((place / "out/ceremony.journal").read_text())
    journal |= {"begun": "token-1", "steps": journal["steps"][:-1]}
    # The power went after the token was made, and before its PIN was written.
    (place / "out/ceremony.journal").write_text(json.dumps(journal))
    (place / "hsm/gw.pin").unlink()
    with _begin(place, gateway) as one:
        one.answer("Go on")
        one.answer("Take it as it is", "y")
        one.answer("first half of the user PIN", "2")
        one.answer("second half of the user PIN", "1")
        one.answer("first half of the user PIN, Bram de Wit: ", USER[0])
        one.answer("second half of the user PIN, Ada Lindqvist: ", USER[1])
        one.expect("was taken up")
        one.kill()
    assert (place / "hsm/gw.pin").read_text() == "".join(USER) + "\n"
    # The power went after the PIN was written, and before the token was made.
    (place / "out/ceremony.journal").write_text(json.dumps(journal))
    for folder in (place / "hsm/tokens").iterdir():
        rmtree(folder)
    with _begin(place, gateway) as one:
        one.answer("Go on")
        one.answer("Remove that file", "y")
        one.expect("Who has the first half of the SO PIN")
        assert not (place / "hsm/gw.pin").exists()
        _nothing_secret(place, one.seen)


def test_weak_and_mistyped_pins_are_asked_for_again(place: Path) -> None:
    with _begin(place, _gateway(place, "gw", root=False)) as one:
        _people(one, "turns")
        one.answer("Go on")
        one.answer("Go on")
        one.answer("Who has the SO PIN", "Ada Lindqvist")
        one.expect("write a number from 1 to 2")
        one.answer("Who has the SO PIN", "1")
        one.answer("New SO PIN[^\n]*: ", "")
        one.expect("Refused: [^\n]*it is empty")
        one.answer("New SO PIN[^\n]*: ", "123456")
        one.expect("Refused: it is one character again and again")
        one.answer("New SO PIN[^\n]*: ", "ab1")
        one.expect("Refused: it must have at least 6")
        one.answer("New SO PIN[^\n]*: ", SO[0])
        one.answer("The same once more: ", SO[1])
        one.expect("Refused: the two are not the same")
        _twice(one, "SO PIN", SO[0])
        one.answer("Who has the user PIN", "1")
        one.expect("the two PINs need two people")
        assert one.end() == ExitCode.FAILURE
        _nothing_secret(place, one.seen)
    assert not (place / "hsm/gw.pin").exists()


def test_one_key_in_two_tokens(place: Path) -> None:
    gateway = _gateway(place, "one", "two", root=False)
    with _begin(place, gateway, "--copy", "import") as one:
        _people(one)
        one.answer("Go on")
        _token(one)
        _token(one)
        for _ in range(5):
            one.answer("Go on")
        assert one.end() == ExitCode.OK, one.seen[-2000:]
        _nothing_secret(place, one.seen)
    then = transcript_of((place / "out/transcript.json").read_bytes())
    keys = [each for token in then.tokens for each in token.objects if each.kind == "key"]
    assert len({each.public_key for each in keys}) == 1
    assert [each.attributes["LOCAL"] for each in keys] == [False, False]
    assert _run(place, "token", "doctor", "-c", str(gateway)).returncode == 0


def test_a_label_that_is_taken_is_not_touched(place: Path) -> None:
    gateway = _gateway(place, "gw", root=False)
    with _begin(place, gateway) as one:
        _people(one)
        one.answer("Go on")
        _token(one)
        one.expect("Go on")
        assert _run(place, "key", "generate", "-c", str(gateway)).returncode == 0
        one.press(b"\n")
        assert one.end() == ExitCode.TOKEN_UNUSABLE
        assert "an object 'gateway' that this ceremony did not make" in one.seen
    # Nor at the next try: the step that failed had made nothing.
    with _begin(place, gateway) as one:
        one.answer("Go on")
        assert one.end() == ExitCode.TOKEN_UNUSABLE
        assert "an object 'gateway' that this ceremony did not make" in one.seen
    assert _run(place, "key", "show", "gateway", "-c", str(gateway)).returncode == 0


def test_without_a_terminal_there_is_no_ceremony(place: Path) -> None:
    done = _run(place, "ceremony", "-c", str(_gateway(place, "gw")))
    assert done.returncode == ExitCode.BAD_CONFIG
    assert b"needs a terminal" in done.stderr


def test_a_tree_is_hashed_as_by_hand(tmp_path: Path) -> None:
    for name in ("b", "a/c d", "a/__pycache__/x.pyc", "A"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    by_hand = "find . -type f -not -path '*/__pycache__/*' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum"
    done = subprocess.run(["sh", "-c", by_hand], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode().split()[0] == tree_hash(tmp_path)


def test_without_a_token_no_pin_is_asked_for(place: Path) -> None:
    with MODULES["nss"]() as token:
        gateway = _gateway(place, "gone", root=False)
        uri = token.uri.replace("NSS%20Certificate%20DB", "gone") + f"&pin-source=file:{place}/pin"
        gateway.write_text(re.sub('uri: "[^"]*"', f'uri: "{uri}"', gateway.read_text()))
        with Terminal("ceremony", "-c", str(gateway), "--out", f"{place}/out") as one:
            _people(one)
            one.answer("Go on")
            one.answer("Go on")
            assert one.end() == ExitCode.TOKEN_UNUSABLE
            assert "has no empty slot for it" in one.seen
            assert "New SO PIN" not in one.seen


def test_tokens_that_are_there_get_a_wrapped_copy(place: Path) -> None:
    """Two NSS stores with one AES key: taken as they are, the key made in the first leaves wrapped into the other."""
    (place / "pin").write_text("store-pin-55\n")
    (place / "pin").chmod(0o600)
    first = place / "nss-1"
    first.mkdir()
    subprocess.run(["certutil", "-N", "-d", f"sql:{first}", "-f", str(place / "pin")], check=True)
    uris = [
        f"pkcs11:token=NSS%20Certificate%20DB?module-path={NSS_MODULE}&pin-source=file:{place}/pin&x-init-args="
        + quote(f"configdir='sql:{place}/nss-{number}' certPrefix='' keyPrefix='' secmod='secmod.db' flags=")
        for number in (1, 2)
    ]
    with TokenPool.open(uris[0], bytearray(b"store-pin-55"), 1, read_write=True) as pool, pool.control() as calls:
        uses = (("SENSITIVE", True), ("EXTRACTABLE", False), ("WRAP", True), ("UNWRAP", True))
        calls.generate_key(
            0x1080,
            (
                *((CKA[name], value) for name, value in (("CLASS", 4), ("KEY_TYPE", 0x1F), ("VALUE_LEN", 32))),
                *((CKA[name], value) for name, value in (("TOKEN", True), ("PRIVATE", True), *uses)),
                (CKA["LABEL"], b"shared"),
            ),
        )
    copytree(first, place / "nss-2")
    gateway = place / "wg0.yaml"
    gateway.write_text(
        f"version: 1\nstate_directory: {place}/state\ntoken:\n  uris:\n"
        + "".join(f'  - "{uri}"\n' for uri in uris)
        + "interface: {name: wg0, key: gateway}\n"
    )
    with Terminal("ceremony", "-c", str(gateway), "--out", f"{place}/out", "--copy", "wrapped:shared") as one:
        _people(one)
        one.answer("Go on")
        for _ in uris:
            one.answer("Go on")
            one.answer("Take it as it is", "y")
        for _ in range(4):
            one.answer("Go on")
        assert one.end() == ExitCode.OK, one.seen[-2000:]
        assert "store-pin-55" not in one.seen
    then = transcript_of((place / "out/transcript.json").read_bytes())
    keys = [each for token in then.tokens for each in token.objects if each.label == "gateway"]
    assert len({each.public_key for each in keys}) == 1
    assert len(keys) == 2
    assert [each.attributes["EXTRACTABLE"] for each in keys] == [True, False]
    assert "its PINs were set before" in (place / "out/transcript.txt").read_text().replace("\n      ", " ")
    assert _run(place, "ceremony", "verify", f"{place}/out/transcript.json").returncode == ExitCode.OK
