"""A record's line: canonical, short, ASCII, and what docs and schema say it is."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.audit import Event, Who, decode, json_schema
from wghsm.audit.record import FIRST_PREV, KINDS, MAX_LINE, encode, microseconds, rfc3339

STREAM = "wg0/gateway/" + "ab" * 16
NOW = 1_767_261_600_123_456


def test_a_line_has_its_fields_in_order_and_leaves_out_what_is_empty() -> None:
    event = Event(kind="key.use", operation="accept_initiation", peer="PEER=", latency_us=830, who=Who(0, 0, 17))
    line = encode(event, STREAM, 7, NOW, FIRST_PREV)
    assert line == (
        b'{"v":1,"stream":"%s","seq":7,"time":"2026-01-01T10:00:00.123456Z","prev":"%s","kind":"key.use",'
        b'"operation":"accept_initiation","result":"ok","peer":"PEER=","latency_us":830,"who":{"uid":0,"gid":0,"pid":17}}'
    ) % (STREAM.encode(), FIRST_PREV.encode())
    assert decode(line).latency_us == 830


texts = st.text(max_size=3000) | st.text(alphabet=st.characters(), max_size=400) | st.just('\udcff\x00"\\' * 900)


@given(
    st.sampled_from(KINDS),
    texts,
    texts,
    texts,
    st.dictionaries(st.text(max_size=200), texts | st.integers(-(2**63), 2**63 - 1), max_size=30),
)
def test_every_line_is_short_ascii_and_reads_back(
    kind: str, operation: str, peer: str, token: str, detail: dict[str, str | int]
) -> None:
    event = msgspec.structs.replace(
        Event(kind="fault", operation=operation, peer=peer, token=token, key=peer, result=token, detail=detail),
        kind=kind,
    )
    line = encode(event, STREAM, 2**63 - 1, NOW, FIRST_PREV)
    assert len(line) <= MAX_LINE
    assert line.isascii()
    assert b"\n" not in line
    record = decode(line)
    assert record.kind == kind
    if len(json.dumps([operation, peer, token, detail])) < 900:
        assert (record.operation, record.peer, record.detail) == (operation, peer, detail)


def test_times_go_both_ways() -> None:
    for now in (0, NOW, NOW // 10**6 * 10**6, 4_102_444_799_999_999):
        assert microseconds(rfc3339(now)) == now
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"seq": -1},
        {"prev": "AB" * 32},
        {"stream": "wg0"},
        {"time": "2026-01-01T10:00:00Z"},
        {"kind": "other"},
        {"detail": {"a": {}}},
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, object]) -> None:
    line = json.loads(encode(Event(kind="stop", operation="stop"), STREAM, 0, NOW, FIRST_PREV))
    with pytest.raises(msgspec.MsgspecError):
        decode(json.dumps({**line, **change}))


def test_the_schema_names_every_field_and_kind() -> None:
    schema = json_schema()
    assert schema["required"] == ["v", "stream", "seq", "time", "prev", "kind", "operation", "result"]
    assert sorted(schema["properties"]["kind"]["enum"]) == sorted(KINDS)
    assert "Who" in schema["$defs"]
