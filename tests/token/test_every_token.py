"""Commands with the file of a gateway that has several tokens: done in every one, or in the first and said so."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.json_output import check_json
from wghsm.exits import ExitCode
from wghsm.softhsm_setup import SoftHsmToken, make_token, softhsm_token


@dataclass(frozen=True)
class Twins:
    """Two empty tokens of one store, and the file of a gateway that has them."""

    one: SoftHsmToken
    two: SoftHsmToken
    file: Path

    def run(self, *words: str, token: SoftHsmToken | None = None, given: bytes = b"") -> tuple[int, str, str]:
        """Run `wghsm WORDS` with the file, or with one of the tokens; give exit status, output and errors."""
        where = ("-c", str(self.file)) if token is None else ("--token", token.uri)
        done = subprocess.run(
            [sys.executable, "-m", "wghsm", *words, *where],
            env={**os.environ, **self.one.environment},
            input=given,
            capture_output=True,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        check_json(words, done.stdout)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def labels(self, kind: str) -> list[list[str]]:
        """The labels of the `key`s or `psk`s in each."""
        listed = [json.loads(self.run(kind, "list", "--json", token=token)[1]) for token in (self.one, self.two)]
        return [sorted(report["label"] for report in reports) for reports in listed]


@pytest.fixture
def twins(tmp_path: Path) -> Iterator[Twins]:
    with softhsm_token(label="one", uid=61100) as one:
        two = make_token(one.directory, label="two", uid=61100)
        file = tmp_path / "gw.yaml"
        file.write_text(
            f"version: 1\ntoken:\n  uris: {json.dumps([one.uri, two.uri])}\n  psk_wrap_key: wrap\n"
            "interface:\n  name: wgtwins\n  key: gateway\n"
        )
        yield Twins(one, two, file)


def _key() -> bytes:
    return base64.b64encode(X25519PrivateKey.generate().private_bytes_raw())


def test_what_comes_from_outside_goes_into_each_and_is_destroyed_in_each(twins: Twins) -> None:
    code, shown, _ = twins.run("key", "import", "--json", given=_key())
    assert code == 0
    for token in (twins.one, twins.two):
        public = twins.run("key", "public", "gateway", token=token)[1].strip()
        assert public == json.loads(shown)["public_key"]
    assert twins.run("psk", "put", "alice", given=base64.b64encode(b"p" * 32))[0] == 0
    for token in (twins.one, twins.two):
        record = str(twins.file.with_name("exports"))
        psk = twins.run("psk", "export", "--object", "alice", "--out", "-", "--record", record, token=token)[1]
        assert psk.strip() == base64.b64encode(b"p" * 32).decode()
    assert twins.labels("psk") == [["alice"], ["alice"]]

    unasked = twins.run("psk", "destroy", "alice")
    assert unasked[0] == ExitCode.BAD_CONFIG
    assert twins.run("psk", "destroy", "alice", "--yes", "--id", "00")[0] == ExitCode.BAD_CONFIG
    assert twins.run("psk", "destroy", "alice", "--yes")[0] == 0
    assert twins.labels("psk") == [[], []]
    code, _, said = twins.run("psk", "destroy", "alice", "--yes")
    assert code == ExitCode.TOKEN_UNUSABLE
    assert "no secret with the label 'alice' in token 'one'" in said
    assert "and token 'two'" in said

    assert twins.run("key", "import", "old", given=_key())[0] == 0
    assert twins.run("key", "destroy", "old", "--yes", token=twins.one)[0] == 0
    code, shown, _ = twins.run("key", "destroy", "old", "--yes", "--json")
    assert (code, json.loads(shown)["objects_destroyed"]) == (0, 1)
    assert twins.labels("key") == [["gateway"], ["gateway"]]
    assert twins.run("key", "destroy", "old", "--yes")[0] == ExitCode.TOKEN_UNUSABLE


def test_what_is_half_done_says_what_is_left(twins: Twins) -> None:
    assert twins.run("key", "import", "gateway", token=twins.two, given=_key())[0] == 0
    code, _, said = twins.run("key", "import", given=_key())
    assert code != 0
    assert "token 'two'" in said
    assert "It is done in token 'one'" in said
    assert f"give the command for the rest: --token '{twins.two.uri}'" in said
    # A first token that refuses leaves nothing half done.
    twins.run("key", "import", "other", token=twins.one, given=_key())
    code, _, said = twins.run("key", "import", "other", given=_key())
    assert code != 0
    assert "It is done" not in said
    assert twins.labels("key") == [["gateway", "other"], ["gateway"]]


def test_what_is_made_is_in_the_first_alone_and_says_so(twins: Twins) -> None:
    for kind, words in (
        ("key", ["key", "generate", "made"]),
        ("psk", ["psk", "derive-root", "root"]),
        ("psk", ["psk", "wrap", "--make-key"]),
    ):
        code, _, said = twins.run(*words)
        assert code == 0
        assert "is in token 'one'" in said
        assert " only, and token 'two'" in said
        assert "wghsm token doctor -c compares them" in said
        assert twins.labels(kind)[1] == []
