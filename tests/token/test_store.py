"""SoftHSM stores: laid out for another uid, used by that uid, made without a PIN in any argument or environment."""

import base64
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.json_output import check_json
from tests.token.conftest import environment
from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import CurveUnsupported, LabelTaken, TokenError, TokenPool, TokenUri, open_pin
from wghsm.pkcs11_backend.provision import generate_key
from wghsm.pkcs11_backend.tokens import init_token
from wghsm.softhsm_setup import _store, find_module, make_token, softhsm_token, store_owner

UID = 61100

_DERIVE = """
import os, sys
from wghsm.pkcs11_backend import TokenPool, TokenUri, open_pin
uri = TokenUri.parse(sys.argv[1])
source = open_pin(uri.pin_source)
os.setgroups([]); os.setresgid(61100, 61100, 61100); os.setresuid(61100, 61100, 61100)
with TokenPool.open(uri, source.read(), 2) as pool:
    print(pool.find_key("gateway").public_key.hex())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="wghsm-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def open_folder(folder: Path) -> Path:
    folder.chmod(0o711)
    return folder


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_layout_for_another_uid(open_folder: Path) -> None:
    made = make_token(open_folder / "store", label="gw", uid=UID)
    tokens = made.directory / "tokens"
    assert (_mode(made.directory), made.directory.stat().st_uid) == (0o711, 0)
    assert (_mode(tokens), tokens.stat().st_uid, tokens.stat().st_gid) == (0o700, UID, UID)
    for path in (made.pin_file, made.so_pin_file):
        assert (_mode(path), path.stat().st_uid) == (0o600, 0)
    inside = list(tokens.rglob("*"))
    assert inside
    for path in inside:
        assert path.stat().st_uid == UID
        assert _mode(path) & 0o077 == 0
    conf = made.conf.read_text()
    for line in (
        f"directories.tokendir = {tokens}",
        "objectstore.backend = file",
        "log.level = ERROR",
        "slots.removable = false",
        "library.reset_on_fork = true",
    ):
        assert line in conf.splitlines()
    assert TokenUri.parse(made.uri).pin_source == f"file:{made.pin_file}"


def _wghsm(made_environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", *arguments],
        env={**os.environ, **made_environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    check_json(arguments, done.stdout)
    return done


def test_a_key_made_by_root_serves_the_dropped_uid(open_folder: Path) -> None:
    made = make_token(open_folder / "store", label="gw", uid=UID)
    done = _wghsm(made.environment, "key", "generate", "gateway", "--token", made.uri, "--json")
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_uid == UID for path in (made.directory / "tokens").rglob("*"))
    child = subprocess.run(
        [sys.executable, "-c", _DERIVE, made.uri],
        env={**os.environ, **made.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    public = _wghsm(made.environment, "key", "public", "gateway", "--token", made.uri)
    assert base64.b64decode(public.stdout) == bytes.fromhex(child.stdout.strip())


def test_a_closed_way_is_named(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(0o700)
    folder.chmod(0o711)
    with pytest.raises(TokenError, match=rf"uid {UID} cannot pass through {closed}; chmod o\+x"):
        make_token(closed / "store", label="gw", uid=UID)
    assert not list(folder.rglob("*.pin"))


def test_a_token_is_never_made_over_another(open_folder: Path) -> None:
    made = make_token(open_folder, label="gw", uid=UID)
    pin = made.pin_file.read_bytes()
    with pytest.raises(LabelTaken):
        make_token(open_folder, label="gw", uid=UID)
    made.pin_file.rename(open_folder / "kept")
    made.so_pin_file.unlink()
    with pytest.raises(TokenError, match="exists already"):
        make_token(open_folder, label="gw", uid=UID)
    assert not made.pin_file.exists()
    assert (open_folder / "kept").read_bytes() == pin


def test_the_pins_of_one_who_was_quicker_stay(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out = _store._lay_out

    def meanwhile(directory: Path, conf: Path, uid: int, gid: int) -> None:
        lay_out(directory, conf, uid, gid)
        (directory / "gw.pin").write_text("theirs")

    monkeypatch.setattr(_store, "_lay_out", meanwhile)
    with pytest.raises(LabelTaken, match=r"gw\.pin exists: there is a token 'gw' already"):
        make_token(open_folder / "hsm", label="gw")
    assert (open_folder / "hsm/gw.pin").read_text() == "theirs"
    assert (open_folder / "hsm/softhsm2.conf").exists()


def test_two_tokens_share_a_store(open_folder: Path) -> None:
    one = make_token(open_folder, label="one", uid=UID)
    two = make_token(open_folder, label="two", uid=UID)
    assert one.conf == two.conf
    assert one.pin_file.read_bytes() != two.pin_file.read_bytes()
    shown = _wghsm(one.environment, "token", "list", "--token", one.uri, "--json")
    labels = [token["label"] for token in json.loads(shown.stdout) if token["initialised"]]
    assert sorted(labels) == ["one", "two"]


def test_a_store_of_another_uid_is_not_mixed(open_folder: Path) -> None:
    make_token(open_folder, label="gw", uid=UID)
    with pytest.raises(TokenError, match=f"belongs to uid {UID}"):
        make_token(open_folder, label="gx", uid=UID + 1)


def test_a_folder_of_another_user_is_refused(open_folder: Path) -> None:
    os.chown(open_folder, UID, UID)
    with pytest.raises(TokenError, match="could change the PIN files"):
        make_token(open_folder, label="gw", uid=UID)


def test_a_folder_with_other_things_keeps_its_mode(folder: Path) -> None:
    (folder / "gateway.yaml").write_text("version: 1\n")
    folder.chmod(0o755)
    make_token(folder, label="gw", uid=UID)
    assert _mode(folder) == 0o755


def test_a_full_disk_is_named_and_nothing_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TokenError, match=f"^{folder}/hsm: No space left on device$"):
        make_token(folder / "hsm", label="gw", uid=UID)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("label", ["", "../x", "a/b", "x" * 33, "a b"])
def test_a_label_is_a_plain_word(folder: Path, label: str) -> None:
    with pytest.raises(TokenError, match="token label"):
        make_token(folder, label=label)


def test_a_given_pin_is_used_and_left_to_the_caller() -> None:
    pin = bytearray(b"given-4321")
    with softhsm_token(pin=pin) as made, environment(made.environment):
        assert pin == b"given-4321"
        assert made.pin_file.read_bytes() == b"given-4321\n"
        with TokenPool.open(made.uri, pin, 1, read_write=True) as pool:
            generate_key(pool, "gateway")
        folder = made.directory
    assert not folder.exists()


def test_random_pins_differ() -> None:
    with softhsm_token() as one, softhsm_token() as two:
        pins = {path.read_bytes() for made in (one, two) for path in (made.pin_file, made.so_pin_file)}
    assert len(pins) == 4
    assert all(len(pin) >= 20 for pin in pins)


def test_init_touches_no_slot_that_holds_a_token() -> None:
    with softhsm_token(label="gw") as made, environment(made.environment):
        uri = TokenUri.parse(made.uri)
        pin = open_pin(uri.pin_source).read()
        with TokenPool.open(uri, pin, 1, read_write=True) as pool:
            public = generate_key(pool, "gateway").public_key
            slot = int(str(pool._token.slot.slot_id)) if pool._token is not None else 0
        with pytest.raises(LabelTaken):
            init_token(uri, bytearray(b"12345678"), bytearray(b"1234"))
        with pytest.raises(TokenError, match="no empty slot"):
            init_token(
                TokenUri(module_path=uri.module_path, token="new", slot_id=slot),  # noqa: S106
                bytearray(b"12345678"),
                bytearray(b"1234"),
            )
        with TokenPool.open(uri, pin, 1) as pool:
            assert pool.find_key("gateway").public_key == public


@pytest.mark.parametrize("offered", ["CKM_EC_EDWARDS_KEY_PAIR_GEN", "CKM_ECDH1_DERIVE"])
def test_a_token_without_x25519_is_refused(offered: str) -> None:
    with softhsm_token() as made, environment(made.environment):
        made.conf.write_text(made.conf.read_text() + f"slots.mechanisms = {offered},CKM_SHA256_HMAC\n")
        with (
            TokenPool.open(made.uri, open_pin(f"file:{made.pin_file}").read(), 1, read_write=True) as pool,
            pytest.raises(CurveUnsupported) as caught,
        ):
            generate_key(pool, "gateway")
        assert caught.value.exit_code is ExitCode.TOKEN_UNUSABLE
        assert "X25519" in str(caught.value)


def test_a_key_on_a_token_that_lost_its_derive() -> None:
    with softhsm_token() as made, environment(made.environment):
        pin = open_pin(f"file:{made.pin_file}").read()
        with TokenPool.open(made.uri, pin, 1, read_write=True) as pool:
            generate_key(pool, "gateway")
        made.conf.write_text(made.conf.read_text() + "slots.mechanisms = CKM_EC_EDWARDS_KEY_PAIR_GEN,CKM_SHA256_HMAC\n")
        with TokenPool.open(made.uri, pin, 1) as pool, pytest.raises(CurveUnsupported, match="CKM_ECDH1_DERIVE"):
            pool.find_key("gateway")


def test_whose_store_it_is(open_folder: Path) -> None:
    made = make_token(open_folder, label="gw", uid=UID)
    assert store_owner(made.module, made.environment) == (UID, UID)
    assert store_owner("/usr/lib/pkcs11/other.so", made.environment) is None
    assert store_owner(None, made.environment) is None


def test_a_missing_softhsm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wghsm.softhsm_setup._store._MODULES", ("/nowhere/libsofthsm2.so",))
    with pytest.raises(TokenError, match="apt-get install softhsm2") as caught:
        find_module()
    assert caught.value.exit_code is ExitCode.TOKEN_UNUSABLE


def test_the_module_as_a_command(open_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wghsm.softhsm_setup", str(open_folder), "--label", "gw", "--uid", str(UID), "--json"],
        capture_output=True,
        check=True,
    )
    made = json.loads(done.stdout)
    pin = Path(made["pin_file"]).read_bytes().strip()
    assert pin not in done.stdout + done.stderr
    shown = _wghsm(made["environment"], "key", "list", "--token", made["uri"], "--json")
    assert (shown.returncode, json.loads(shown.stdout)) == (0, [])
    again = subprocess.run(
        [sys.executable, "-m", "wghsm.softhsm_setup", str(open_folder), "--label", "gw", "--uid", str(UID)],
        capture_output=True,
        check=False,
    )
    assert again.returncode == ExitCode.FAILURE
    assert len(again.stderr.splitlines()) == 1
