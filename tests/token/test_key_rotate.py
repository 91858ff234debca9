"""`wghsm key rotate|retire` as an operator runs them, with a token in a store of another uid; also when interrupted."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.json_output import check_json
from tests.token.command import run_in_turn
from tests.unit.status_samples import peer_status
from wghsm.cli import _key_pending, _key_reseal, _key_retire, _key_rotate, _recording
from wghsm.cli._key_pending import Pending
from wghsm.cli._output import CommandError
from wghsm.cli._owner import on_token
from wghsm.cli._psk_file import replace_file
from wghsm.config import load, read_wrapped
from wghsm.exits import ExitCode
from wghsm.ipc.admin import Status
from wghsm.noise.curve import public_key
from wghsm.softhsm_setup import SoftHsmToken, make_token, softhsm_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_NAMES = ("alice", "bob", "carol", "dora")
_numbers = count()


@dataclass
class Site:
    """A gateway file with a key of its own in the token, and the PSKs that bob and carol have had wrapped."""

    made: SoftHsmToken
    file: Path
    key: str
    psks: dict[str, list[bytes]] = field(default_factory=dict)

    def run(self, *words: str, given: bytes = b"", code: int = 0) -> str:
        """Run `wghsm WORDS -c FILE`; give standard output, or standard error where it is to fail."""
        done = subprocess.run(
            [sys.executable, "-m", "wghsm", *words, "-c", str(self.file)],
            env={**os.environ, **self.made.environment},
            input=given,
            capture_output=True,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        assert done.returncode == code, done.stderr.decode()
        check_json(words, done.stdout)
        return (done.stderr if code else done.stdout).decode()

    def keys(self) -> dict[str, str]:
        """The public keys in the token that this site has to do with, by label."""
        listed = json.loads(self.run("key", "list", "--json"))
        return {one["label"]: one["public_key"] for one in listed if one["label"].startswith(self.key)}

    def named(self) -> tuple[str, str | None]:
        own = load(self.file).interface
        return own.key, own.previous_key

    def opened(self, name: str) -> list[bytes]:
        """The PSKs of a peer as they are handed out, the newest epoch first."""
        epochs = [str(epoch) for epoch, _ in read_wrapped(self.file.parent / f"{name}.psk")]
        return [self.run("psk", "export", name, "--epoch", epoch, "--out", "-").strip().encode() for epoch in epochs]

    def files_open(self) -> bool:
        """Whether bob's and carol's files hold what was wrapped, for the key that the gateway has now."""
        return all(self.opened(name) == psks for name, psks in self.psks.items())

    @property
    def note(self) -> Path:
        return Pending.path(self.file)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsmToken]:
    with softhsm_token(label="gw", uid=61100) as token:
        file = _written(token, tmp_path_factory.mktemp("first")).file
        secrets = (("psk", "wrap", "--make-key"), ("psk", "derive-root"))
        run_in_turn(token, *(((*words, "-c", str(file)), "") for words in secrets))
        yield token


@pytest.fixture
def site(made: SoftHsmToken, tmp_path: Path) -> Site:
    site = _written(made, tmp_path)
    psks = [(name, base64.b64encode(os.urandom(32))) for name in ("bob", "bob", "carol")]
    commands = [(("key", "generate"), ""), *((("psk", "wrap", name), psk.decode()) for name, psk in psks)]
    run_in_turn(made, *(((*words, "-c", str(site.file)), given) for words, given in commands))
    for name, psk in psks:
        site.psks.setdefault(name, []).insert(0, psk)
    return site


def _written(made: SoftHsmToken, folder: Path) -> Site:
    public = [base64.b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw()).decode() for _ in _NAMES]
    psks = ("derived:3", "wrapped:bob.psk", "wrapped:carol.psk", "none")
    site = Site(made, folder / "gw.yaml", f"k{next(_numbers)}x")
    site.file.write_text(
        f"# a gateway\nversion: 1\nstate_directory: {folder}/state\n"
        f'token: {{uri: "{made.uri}", psk_root: root, psk_wrap_key: wrap}}\n'
        f"interface:\n  name: wgr{os.getpid() % 10**6}\n  key: {site.key}   # the key\n  mtu: 1420\npeers:\n"
        + "".join(
            f"- {{name: {name}, public_key: {key}, preshared_key: {psk}, allowed_ips: []}}\n"
            for name, key, psk in zip(_NAMES, public, psks, strict=True)
        )
    )
    return site


def test_the_gateway_gets_another_key_and_keeps_the_one_before(site: Site) -> None:
    text, files = site.file.read_text(), [(site.file.parent / f"{name}.psk").read_text() for name in ("bob", "carol")]
    new = f"{site.key}-2"
    said = site.run("key", "rotate", "--yes")
    public = site.keys()[new]
    assert site.file.read_text() == text.replace(
        f"key: {site.key}   # the key\n", f"key: {new}   # the key\n  previous_key: {site.key}\n"
    )
    assert f"new public key: {public}\n" in said
    assert "new PSK, which comes from the key: alice\n" in said
    for words in ("wghsm reload wgr", "psk export PEER", "wghsm status", "wghsm key retire -c", "wghsm key destroy"):
        assert words in said
    assert [(site.file.parent / f"{name}.psk").read_text() for name in ("bob", "carol")] != files
    assert site.files_open()
    assert not site.note.exists()
    (shown,) = [one for one in json.loads(site.run("key", "list", "--json")) if one["label"] == new]
    assert shown["attributes"]["EXTRACTABLE"] is False
    assert shown["custody"] == "never-outside"
    # One rotation at a time.
    assert "retire" in site.run("key", "rotate", "--yes", code=ExitCode.BAD_CONFIG)
    assert "--force" in site.run("key", "rotate", "--yes", "--compromised", code=ExitCode.BAD_CONFIG)
    assert site.named() == (new, site.key)


def test_what_it_says_in_json(site: Site) -> None:
    old = site.keys()[site.key]
    report = json.loads(site.run("key", "rotate", "--yes", "--json"))
    assert (report["key"], report["previous_key"]) == (f"{site.key}-2", site.key)
    assert (report["public_key"], report["previous_public_key"]) == (site.keys()[f"{site.key}-2"], old)
    assert (report["compromised"], report["custody"]) == (False, "never-outside")
    assert report["resealed"] == [str(site.file.parent / f"{name}.psk") for name in ("bob", "carol")]
    assert report["peers"] == [{"peer": name, "new_psk": name == "alice"} for name in _NAMES]


def test_a_compromised_key_is_out_at_once(site: Site) -> None:
    said = site.run("key", "rotate", "--yes", "--compromised")
    assert site.named() == (f"{site.key}-2", None)
    assert "every peer is cut off until it has the new public key" in said
    assert "key retire" not in said
    assert "new PSK" in said
    assert site.files_open()
    site.run("key", "destroy", site.key, "--yes")
    assert site.files_open()


def test_a_compromised_key_may_be_gone_already(site: Site) -> None:
    for name in ("bob", "carol"):
        site.file.write_text(site.file.read_text().replace(f"wrapped:{name}.psk", "none"))
    words = ("key", "destroy", site.key, "--yes", "--token", site.made.uri)
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", *words], env={**os.environ, **site.made.environment}, check=False
    )
    assert done.returncode == 0
    assert "no private key" in site.run("key", "rotate", "--yes", code=ExitCode.TOKEN_UNUSABLE)
    site.run("key", "rotate", "--yes", "--compromised")
    assert site.named() == (f"{site.key}-2", None)
    assert list(site.keys()) == [f"{site.key}-2"]


def test_labels_are_counted_on_and_those_that_are_taken_left_out(site: Site) -> None:
    for taken in (2, 3):
        site.run("key", "generate", f"{site.key}-{taken}")
    site.run("key", "rotate", "--yes", "--compromised")
    assert site.named()[0] == f"{site.key}-4"
    site.run("key", "rotate", "--yes", "--compromised")
    assert site.named()[0] == f"{site.key}-5"


def test_a_key_that_is_there_already_is_taken_by_its_label(site: Site) -> None:
    before = site.file.read_text()
    assert "no private key" in site.run("key", "rotate", "--yes", "--to", f"{site.key}-no", code=4)
    assert "the gateway's key already" in site.run("key", "rotate", "--yes", "--to", site.key, code=2)
    assert site.file.read_text() == before
    assert not site.note.exists()
    imported = base64.b64encode(X25519PrivateKey.generate().private_bytes_raw())
    site.run("key", "import", f"{site.key}-in", given=imported)
    said = site.run("key", "rotate", "--yes", "--to", f"{site.key}-in")
    assert site.named() == (f"{site.key}-in", site.key)
    assert "has been outside this token" in said
    assert site.files_open()


def test_nothing_happens_without_a_yes(site: Site) -> None:
    before = site.file.read_text()
    assert "nothing was changed" in site.run("key", "rotate", code=ExitCode.BAD_CONFIG)
    assert site.file.read_text() == before
    assert list(site.keys()) == [site.key]
    assert not site.note.exists()


def test_a_file_that_cannot_be_edited_is_found_before_there_is_a_key(site: Site) -> None:
    site.file.write_text(site.file.read_text().replace(f"key: {site.key}   # the key", f"key: |-\n    {site.key}"))
    assert "on lines of their own" in site.run("key", "rotate", "--yes", code=ExitCode.BAD_CONFIG)
    assert list(site.keys()) == [site.key]


def test_a_wrapped_psk_that_does_not_open_stops_it(site: Site) -> None:
    file = site.file.parent / "bob.psk"
    text, before = file.read_text(), site.file.read_text()
    file.write_text(text.replace("v1 1", "v1 7"))
    said = site.run("key", "rotate", "--yes", code=ExitCode.TOKEN_UNUSABLE)
    assert f"{file}: the PSK of epoch 7 opens with neither key" in said
    assert site.file.read_text() == before
    file.write_text(text)
    site.run("key", "rotate", "--yes")
    # The key that the first attempt had made is the one.
    assert sorted(site.keys()) == [site.key, f"{site.key}-2"]
    assert site.files_open()


def test_what_an_editor_has_saved_meanwhile_stays(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_token_and_edit(*words: Any, **named: Any) -> Any:
        with site.file.open("a") as file:
            file.write("# an edit\n")
        return on_token(*words, **named)

    with monkeypatch.context() as patch:
        for name, value in site.made.environment.items():
            patch.setenv(name, value)
        patch.setattr(_recording, "on_token", on_token_and_edit)
        with pytest.raises(CommandError, match="has changed meanwhile"):
            _key_rotate._rotate(site.file, None, wrappable=False, compromised=False, yes=True)
    site.run("key", "rotate", "--yes")
    assert site.file.read_text().endswith("# an edit\n")
    assert sorted(site.keys()) == [site.key, f"{site.key}-2"]


class _InterruptedError(Exception):
    """Stands for a signal or a loss of power."""


@dataclass
class _Steps:
    """Counts what a rotation does to the disk and the token, and ends it before one of these steps."""

    at: int
    number: int = 0

    def wrap(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def done(*words: Any, **named: Any) -> Any:
            self.number += 1
            if self.number > self.at:
                raise _InterruptedError
            return step(*words, **named)

        return done


_STEPS = 7
"""The note, the token, the note, the gateway file, two files of wrapped PSKs, the removal of the note."""


@pytest.mark.parametrize("compromised", [False, True])
@pytest.mark.parametrize("at", range(1, _STEPS))
def test_an_interrupted_rotation_is_finished_by_another_one(
    site: Site, monkeypatch: pytest.MonkeyPatch, at: int, compromised: bool
) -> None:
    steps = _Steps(at)
    with monkeypatch.context() as patch:
        for name, value in site.made.environment.items():
            patch.setenv(name, value)
        for module in (_key_rotate, _key_pending, _key_reseal):
            patch.setattr(module, "replace_file", steps.wrap(replace_file))
        patch.setattr(_recording, "on_token", steps.wrap(on_token))
        patch.setattr(Pending, "remove", staticmethod(steps.wrap(Pending.remove)))
        with pytest.raises(_InterruptedError):
            _key_rotate._rotate(site.file, None, wrappable=False, compromised=compromised, yes=True)
    assert steps.number == at + 1
    before = (site.key, None)
    after = (f"{site.key}-2", None if compromised else site.key)
    assert site.named() == (before if at < 4 else after)
    site.run("key", "rotate", "--yes", *(["--compromised"] if compromised else []))
    assert site.named() == after
    assert site.files_open()
    assert sorted(site.keys()) == [site.key, f"{site.key}-2"]
    assert not site.note.exists()


def test_a_rotation_that_is_not_through_is_finished_first(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for name, value in site.made.environment.items():
            patch.setenv(name, value)
        patch.setattr(_key_reseal, "replace_file", _Steps(0).wrap(replace_file))
        with pytest.raises(_InterruptedError):
            _key_rotate._rotate(site.file, None, wrappable=False, compromised=True, yes=True)
    assert "is not through" in site.run("key", "rotate", "--yes", "--to", "other", code=ExitCode.BAD_CONFIG)
    assert "is not through" in site.run("key", "retire", code=ExitCode.BAD_CONFIG)
    assert "is not through" in site.run("key", "destroy", site.key, "--yes", code=ExitCode.BAD_CONFIG)
    site.run("key", "rotate")
    assert site.files_open()
    assert site.named() == (f"{site.key}-2", None)


def test_a_note_that_fits_nothing_is_not_followed(site: Site) -> None:
    site.note.write_text("{}")
    assert "then remove the note" in site.run("key", "rotate", "--yes", code=ExitCode.BAD_CONFIG)
    Pending.begin("another", compromised=False).write(site.file)
    assert "does not fit" in site.run("key", "rotate", "--yes", code=ExitCode.BAD_CONFIG)
    site.note.unlink()
    site.run("key", "rotate", "--yes")


# Handing out.


def test_derived_psks_are_handed_out_with_the_key_they_are_for(site: Site) -> None:
    def export(*words: str) -> str:
        return site.run("psk", "export", "alice", *words, "--out", "-").strip()

    assert "previous_key" in site.run("psk", "export", "alice", "--previous-key", "--out", "-", code=2)
    before = export()
    old = site.keys()[site.key]

    def distributed() -> bool:
        return bool(json.loads(site.run("psk", "list", "--peers", "--json"))[0]["distributed"])

    assert distributed()
    site.run("key", "rotate", "--yes")
    new = site.keys()[f"{site.key}-2"]
    assert not distributed()
    assert export("--previous-key") == before
    assert not distributed()
    after = export()
    assert after != before
    assert distributed()
    section = export("--peer-section")
    assert section == (
        f"[Peer]\n# {site.key}-2; PSK for epoch 3 of peer 'alice'\nPublicKey = {new}\nPresharedKey = {after}"
    )
    assert f"PublicKey = {old}\nPresharedKey = {before}" in export("--previous-key", "--peer-section")
    said = site.run("psk", "export", "alice", "--out", str(site.file.parent / "alice.out"))
    assert f"give it to the client, together with the gateway's public key {new}, then" in said
    report = json.loads(site.run("psk", "export", "alice", "--json", "--out", "-"))
    assert (report["key"], report["gateway_public_key"], report["preshared_key"]) == (f"{site.key}-2", new, after)


def test_wrapped_psks_stay_what_they_are(site: Site) -> None:
    site.run("key", "rotate", "--yes")
    new, old = site.keys()[f"{site.key}-2"], site.keys()[site.key]
    psk = site.psks["carol"][0].decode()
    for words, key in (([], new), (["--previous-key"], old)):
        section = site.run("psk", "export", "carol", "--peer-section", *words, "--out", "-")
        assert section.endswith(f"PublicKey = {key}\nPresharedKey = {psk}\n")


# Several tokens.


def test_several_tokens_must_all_have_the_new_key(site: Site) -> None:
    with softhsm_token(label="one", uid=61100) as one:
        two = make_token(one.directory, label="two", uid=61100)
        site.made, uris = one, [one.uri, two.uri]
        site.file.write_text(
            f"version: 1\ntoken:\n  uris: {json.dumps(uris)}\ninterface:\n  name: wg0\n  key: {site.key}\n"
        )
        before = site.file.read_text()

        def bring(label: str, *keys: bytes) -> None:
            for uri, key in zip(uris, keys, strict=True):
                words = ("key", "import", label, "--token", uri)
                command = [sys.executable, "-m", "wghsm", *words]
                done = subprocess.run(
                    command, env={**os.environ, **one.environment}, input=key, capture_output=True, check=False
                )
                assert done.returncode == 0, done.stderr

        keys = [base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()) for _ in range(3)]
        bring(site.key, keys[0], keys[0])
        bring("apart", keys[1], keys[2])
        bring("alike", keys[1], keys[1])

        said = site.run("key", "rotate", "--yes", code=ExitCode.BAD_CONFIG)
        for words in (
            f"wghsm key generate {site.key}-2 --wrappable --token '{one.uri}'",
            f"wghsm key backup {site.key}-2 --wrap-key AES-KEY --out {site.key}-2.backup --token '{one.uri}'",
            f"wghsm key restore --in {site.key}-2.backup --token '{two.uri}'",
            f"wghsm key rotate -c {site.file} --to {site.key}-2",
        ):
            assert words in said
        said = site.run("key", "rotate", "--yes", "--to", "apart", code=ExitCode.TOKEN_UNUSABLE)
        assert "'two'" in said
        assert "key 'apart' is not the one that the first token has" in said
        assert "no private key" in site.run("key", "rotate", "--yes", "--to", "nowhere", code=4)
        assert site.file.read_text() == before
        assert not site.note.exists()
        site.run("key", "rotate", "--yes", "--to", "alike")
        assert site.named() == ("alike", site.key)


def test_commands_that_look_at_keys_look_into_every_token(site: Site) -> None:
    with softhsm_token(label="one", uid=61100) as one:
        two = make_token(one.directory, label="two", uid=61100)
        site.made = one
        site.file.write_text(
            f"version: 1\ntoken:\n  uris: {json.dumps([one.uri, two.uri])}\ninterface:\n  name: wg0\n  key: both\n"
        )
        private = [base64.b64encode(os.urandom(32)) for _ in range(3)]
        public = [base64.b64encode(public_key(base64.b64decode(each))).decode() for each in private]
        for words, key in (
            (("both", "-c", str(site.file)), private[0]),
            (("apart", "--token", one.uri), private[1]),
            (("apart", "--token", two.uri), private[2]),
            (("lone", "--token", two.uri), private[2]),
        ):
            command = [sys.executable, "-m", "wghsm", "key", "import", *words]
            done = subprocess.run(
                command, env={**os.environ, **one.environment}, input=key, capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr
        assert site.run("key", "public") == f"{public[0]}\n"
        listed = json.loads(site.run("key", "list", "--json"))
        assert sorted((each["token"], each["label"]) for each in listed) == [
            ("token 'one'", "apart"),
            ("token 'one'", "both"),
            ("token 'two'", "apart"),
            ("token 'two'", "both"),
            ("token 'two'", "lone"),
        ]
        assert site.run("key", "list").count("  token 'two'  ") == 3
        shown = json.loads(site.run("key", "show", "--json"))
        assert (shown["token"], [each["token"] for each in shown["others"]]) == ("token 'one'", ["token 'two'"])
        assert site.run("key", "show").count(public[0]) == 2
        # One of them has another key, or none.
        unlike = site.run("key", "public", "apart", code=ExitCode.TOKEN_UNUSABLE)
        assert f"different keys 'apart': token 'one': {public[1]}, token 'two': {public[2]}" in unlike
        lone = site.run("key", "public", "lone", code=ExitCode.TOKEN_UNUSABLE)
        assert "this is about token 'two' only" in lone
        assert "no private key" in site.run("key", "show", "none", code=ExitCode.TOKEN_UNUSABLE)

        site.run("psk", "derive-root", "root")
        secrets = json.loads(site.run("psk", "list", "--json"))
        assert [(each["token"], each["label"]) for each in secrets] == [("token 'one'", "root")]


def test_the_key_that_is_made_may_be_for_a_backup(site: Site) -> None:
    report = json.loads(site.run("key", "rotate", "--yes", "--wrappable", "--json"))
    assert report["custody"] == "wrappable"
    assert "leave it out with --to" in site.run(
        "key", "rotate", "--yes", "--wrappable", "--to", "other", code=ExitCode.BAD_CONFIG
    )


# Retiring.


def _status(site: Site, *, used: dict[str, str | None], served: bool = True) -> Status:
    gateway = load(site.file)
    public = site.keys()
    own = gateway.interface
    peers = [
        peer_status(
            name=peer.name,
            public_key=base64.b64encode(peer.public_key).decode(),
            gateway_key=public.get(used.get(peer.name) or ""),
        )
        for peer in gateway.peers
    ]
    return Status(
        name=own.name,
        file=str(site.file),
        public_key=public[own.key],
        listen_port=1,
        fwmark=0,
        up=True,
        started=0,
        token=None,
        processes=[],
        peers=peers,
        counters={},
        key_label=own.key if served else site.key,
        previous_key=public[site.key] if served else None,
        previous_key_label=site.key if served else None,
    )


@pytest.fixture
def rotated(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    for name, value in site.made.environment.items():
        monkeypatch.setenv(name, value)
    site.run("key", "rotate", "--yes")
    return site


def _running(monkeypatch: pytest.MonkeyPatch, status: Status) -> None:
    monkeypatch.setattr(_key_retire, "status_if_running", lambda _name: status)


def test_nobody_knows_who_uses_a_key_of_a_gateway_that_does_not_run(rotated: Site) -> None:
    assert "is not running" in rotated.run("key", "retire", code=ExitCode.NOT_RUNNING)
    assert rotated.named() == (f"{rotated.key}-2", rotated.key)
    said = rotated.run("key", "retire", "--force")
    assert rotated.named() == (f"{rotated.key}-2", None)
    assert "wghsm reload" in said
    assert f"wghsm key destroy {rotated.key} -c" in said
    assert "nothing to retire" in rotated.run("key", "retire")
    assert json.loads(rotated.run("key", "retire", "--json"))["retired"] is None
    rotated.run("key", "destroy", rotated.key, "--yes")
    assert list(rotated.keys()) == [f"{rotated.key}-2"]
    assert rotated.files_open()


def test_a_key_that_peers_use_is_not_retired(rotated: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = f"{rotated.key}-2", rotated.key
    _running(monkeypatch, _status(rotated, used={"alice": old, "bob": new, "carol": old}))
    with pytest.raises(CommandError, match=f"2 of 4 peers still use '{old}': alice, carol; .*--force") as refused:
        _key_retire._retire(rotated.file, force=False)
    assert refused.value.exit_code is ExitCode.FAILURE
    assert rotated.named() == (new, old)
    report = _key_retire._retire(rotated.file, force=True)
    assert (report.still, report.unseen) == (["alice", "carol"], ["dora"])
    assert rotated.named() == (new, None)


def test_a_key_that_nobody_uses_is_retired(rotated: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    new = f"{rotated.key}-2"
    _running(monkeypatch, _status(rotated, used=dict.fromkeys(_NAMES, new)))
    report = _key_retire._retire(rotated.file, force=False)
    assert report.retired == rotated.key
    assert report.still == report.unseen == []


def test_a_gateway_that_has_not_read_its_file_again_cannot_tell(rotated: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    status = _status(rotated, used={}, served=False)
    _running(monkeypatch, status)
    with pytest.raises(CommandError, match=f"runs with '{rotated.key}', so .*wghsm reload"):
        _key_retire._retire(rotated.file, force=False)
    _key_retire._retire(rotated.file, force=True)
    assert rotated.named() == (f"{rotated.key}-2", None)


def test_what_is_still_sealed_for_the_old_key_is_sealed_again(rotated: Site) -> None:
    file = rotated.file.parent / "bob.psk"
    rotated.run("key", "retire", "--force")
    assert rotated.files_open()
    kept = file.read_text()
    # A file from a backup, made before the rotation.
    rotated.file.write_text(rotated.file.read_text().replace(f"key: {rotated.key}-2", f"key: {rotated.key}"))
    rotated.run("psk", "wrap", "bob", given=(psk := base64.b64encode(os.urandom(32))))
    rotated.file.write_text(
        rotated.file.read_text().replace(
            f"key: {rotated.key}   # the key\n", f"key: {rotated.key}-2   # the key\n  previous_key: {rotated.key}\n"
        )
    )
    assert kept != file.read_text()
    report = json.loads(rotated.run("key", "retire", "--force", "--json"))
    assert report["resealed"] == [str(file)]
    rotated.psks["bob"] = [psk, rotated.psks["bob"][0]]
    assert rotated.files_open()


def test_a_file_that_cannot_be_sealed_again_keeps_the_old_key(rotated: Site) -> None:
    file = rotated.file.parent / "bob.psk"
    file.write_text(file.read_text().replace("v1 1", "v1 7"))
    said = rotated.run("key", "retire", "--force", code=ExitCode.TOKEN_UNUSABLE)
    assert "opens with neither key" in said
    assert rotated.named() == (f"{rotated.key}-2", rotated.key)


def test_a_key_that_the_file_names_is_not_destroyed(rotated: Site) -> None:
    new, old = f"{rotated.key}-2", rotated.key
    said = rotated.run("key", "destroy", new, "--yes", code=ExitCode.BAD_CONFIG)
    assert "4 peers (alice, bob, carol, dora) could not reach it" in said
    assert "the derived PSK of 1 peer (alice)" in said
    assert "key retire" in rotated.run("key", "destroy", old, "--yes", code=ExitCode.BAD_CONFIG)
    assert sorted(rotated.keys()) == [old, new]
