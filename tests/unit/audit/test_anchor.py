"""An anchor in each of the forms in which journals and syslog servers give it."""

import json
from pathlib import Path

import pytest

from tests.unit.audit.support import Signer, write_log
from wghsm.audit import read_anchor, verify

SIGNER = Signer()

FORMS = {
    "raw": lambda line: line,
    "RFC 5424": lambda line: b"<134>1 2026-01-01T10:00:00.0Z gw wghsm-audit 17 - - " + line + b"\n",
    "RFC 5424, counted, with BOM": lambda line: b"412 <134>1 2026-01-01T10:00:00.0Z gw a 17 - - \xef\xbb\xbf" + line,
    "rsyslog's file": lambda line: b"Jan  1 10:00:00 gw wghsm-audit[17]: " + line + b"\r\n",
    "journalctl -o json": lambda line: json.dumps({"__CURSOR": "s=1", "MESSAGE": line.decode()}).encode() + b"\n",
    "journalctl -o json, bytes": lambda line: json.dumps({"MESSAGE": list(line)}).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_records_are_found_in_it(tmp_path: Path, form: str) -> None:
    lines = write_log(tmp_path, SIGNER, [4, 4])
    others = [
        b"kernel: eth0 up\n",
        b'{"MESSAGE":"sshd: hello"}\n',
        b'{"MESSAGE":null}\n',
        b'{"MESSAGE":[400]}\n',
        b"{\n",
        b"",
    ]
    anchor = read_anchor([*others, *map(FORMS[form], lines), *others])
    assert (anchor.records, anchor.unreadable, anchor.conflicts) == (len(lines), 0, {})
    report = verify(tmp_path, [SIGNER.public], anchor=anchor, processes=1)
    assert report.verdict == "proved"
    assert report.logs[0].anchored_to == len(lines) - 1


def test_a_record_that_was_cut_off_on_the_way_is_passed_over_and_said(tmp_path: Path) -> None:
    lines = write_log(tmp_path, SIGNER, [4])
    anchor = read_anchor([lines[0], lines[1][:-20], *lines[2:]])
    assert anchor.unreadable == 1
    report = verify(tmp_path, [SIGNER.public], anchor=anchor, processes=1)
    assert report.verdict == "proved"
    assert "1 records of the anchor are cut off" in report.notes[0]


def test_an_anchor_without_records_proves_nothing(tmp_path: Path) -> None:
    write_log(tmp_path, SIGNER, [1])
    report = verify(tmp_path, [SIGNER.public], anchor=read_anchor([b"nothing\n"]), processes=1)
    assert report.verdict == "broken"
