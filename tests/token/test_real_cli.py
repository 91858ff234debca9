"""The commands over modules of others: what they do there, and one clear line with a way out for what they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.json_output import check_json
from tests.token.custodian_process import UID
from tests.token.real_token import RealToken, card_token, nss_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PRIVATE = "WPh5+ZkmO5kYs1yb8wvA8pS1Q4N2nXQwzq0vJc5yF2g=\n"
_PSK = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"


@pytest.fixture(scope="module")
def card() -> Iterator[RealToken]:
    with card_token() as made:
        yield made


@pytest.fixture(scope="module")
def nss() -> Iterator[RealToken]:
    with nss_token() as made:
        yield made


def _run(token: RealToken, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", *words, "--token", token.made.uri],
        env={**os.environ, **token.made.environment},
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    check_json(words, done.stdout)
    return done


def _refused(token: RealToken, *words: str, given: str = "") -> str:
    done = _run(token, *words, given=given)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


_CARDS_OWN_TOOLS = [
    (("key", "generate", "other"), "", ("offers no X25519 key generation", "with the token's own tools")),
    (("key", "import", "other"), _PRIVATE, ("takes no X25519 key from outside", "use the token's own tools")),
    (("key", "destroy", "Encryption key", "--yes"), "", ("does not let its user destroy", "with its administrator")),
    (
        ("key", "backup", "Encryption key", "--wrap-key", "backup-aes", "--out", "/nonexistent/backup"),
        "",
        ("has no AES key wrap with padding (RFC 5649)", "do this instead", "wghsm key import, twice"),
    ),
    (("psk", "derive-root", "root"), "", ("offers no CKM_SHA256_HMAC", "or another token")),
    (("psk", "put", "psk"), _PSK, ("takes no PSK objects", "or another token")),
]


@pytest.mark.parametrize(
    ("words", "given", "said"), _CARDS_OWN_TOOLS, ids=[" ".join(words[:2]) for words, _, _ in _CARDS_OWN_TOOLS]
)
def test_what_a_card_leaves_to_its_own_tools(
    card: RealToken, words: Sequence[str], given: str, said: Sequence[str]
) -> None:
    line = _refused(card, *words, given=given)
    assert [each for each in said if each not in line] == [], line
    assert _PRIVATE.strip() not in line
    assert card.label in _run(card, "token", "show").stdout
    assert card.key in _run(card, "key", "list").stdout


def test_what_nss_can_and_cannot(nss: RealToken) -> None:
    assert "keeps every secret unreadable" in _refused(nss, "psk", "put", "psk", given=_PSK)
    words = ("key", "backup", "gateway", "--wrap-key", "backup-aes", "--out", "/nonexistent/backup")
    line = _refused(nss, *words)
    assert "may never leave (CKA_EXTRACTABLE is false)" in line
    assert "do this instead" in line
    for made in (("key", "generate", "one"), ("psk", "derive-root", "two")):
        assert _run(nss, *made).returncode == 0
    imported = _run(nss, "key", "import", "three", given=_PRIVATE)
    assert imported.returncode == 0
    assert "has been outside" in imported.stdout + imported.stderr
    listed = _run(nss, "key", "list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["LABEL", "gateway", "one", "three"]
    # Root has written; the store is the custodian's all the same.
    store = nss.made.directory / "store"
    assert {path.stat().st_uid for path in (store, *store.iterdir())} == {UID}
