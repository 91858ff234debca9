"""The transcript on paper: text and page say all of it, and nothing else gets in."""

import base64
import json
import re
from html.parser import HTMLParser

import msgspec
import pytest

from tests.unit.ceremony.samples import transcript
from wghsm.ceremony import Participant, encode, fingerprint, journal_of, render_page, render_text, transcript_of

ONE = transcript()
_EMPTY = {"meta", "path"}


class _Reader(HTMLParser):
    """Collects text and tags, and counts what stays open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onclick"}
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _EMPTY | {"br"}:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page.replace("<br>", " "))
    reader.close()
    assert reader.open == []
    return reader


def test_the_document_comes_back() -> None:
    assert transcript_of(encode(ONE).encode()) == ONE
    assert json.loads(encode(ONE))["v"] == 1
    with pytest.raises(msgspec.MsgspecError):
        journal_of(b"{}")


def test_the_page_and_the_text_say_everything() -> None:
    page = " ".join(_read(render_page(ONE)).text.replace("\u00a0", " ").split())
    text = " ".join(render_text(ONE).split())
    facts = [
        ONE.id,
        ONE.host,
        *(person.name for person in ONE.participants),
        *(person.role for person in ONE.participants),
        *(step.title for step in ONE.steps),
        *(did for step in ONE.steps for did in step.did),
        ONE.tokens[0].serial,
        ONE.tokens[0].model,
        *(one.public_key for one in ONE.tokens[0].objects if one.public_key),
        *(finding.text for finding in ONE.tokens[0].findings),
    ]
    for fact in facts:
        assert " ".join(fact.split()) in page, fact
        assert " ".join(fact.split()) in text, fact
    for name in ONE.tokens[0].objects[0].attributes:
        assert f"CKA_{name}" in page
        assert name in text
    digest = fingerprint(encode(ONE).encode())
    assert digest in re.sub(r"\s", "", page)
    assert digest in text
    assert "signature" in text


def test_the_page_fetches_nothing_and_runs_nothing() -> None:
    page = render_page(ONE)
    assert "script" not in _read(page).tags
    assert "@import" not in page
    assert "url(" not in page
    assert re.findall(r"https?://(?!www\.w3\.org/)", page) == []
    assert "@media print" in page


def test_there_is_a_code_for_each_public_key() -> None:
    tags = _read(render_page(ONE)).tags
    assert tags.count("svg") == sum(one.public_key is not None for one in ONE.tokens[0].objects) == 2


def test_a_code_holds_the_key() -> None:
    import segno

    key = ONE.tokens[0].objects[0].public_key or ""
    drawn = segno.make(key, error="m", micro=False).svg_inline(omitsize=True, border=2)
    path = re.search(r' d="([^"]+)"', drawn)
    assert path
    assert path[1] in render_page(ONE)
    assert len(base64.b64decode(key)) == 32


def test_names_cannot_write_the_page() -> None:
    person = Participant('<script>alert("x")</script>', "a & b")
    page = render_page(msgspec.structs.replace(ONE, participants=[person, person]))
    assert "<script" not in page
    assert _read(page).text.count('<script>alert("x")</script>') == 4
