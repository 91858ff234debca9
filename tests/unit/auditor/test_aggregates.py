"""Aggregates: bounded by the number of causes, whatever strangers do."""

from __future__ import annotations

from collections import Counter as Tally

from hypothesis import given
from hypothesis import strategies as st

from wghsm.auditor.aggregates import CAUSES, Aggregates
from wghsm.ipc import Counter, Role

ROLES = (Role.INGRESS, Role.EGRESS, Role.HANDSHAKE, Role.CUSTODIAN)


@given(st.lists(st.dictionaries(st.tuples(st.sampled_from(ROLES), st.sampled_from(Counter)), st.integers(1, 10**9))))
def test_each_second_is_one_record_at_most_and_nothing_is_lost(seconds: list[dict[tuple[Role, Counter], int]]) -> None:
    table: Tally[tuple[Role, Counter]] = Tally()
    aggregates = Aggregates(
        lambda role: {cause: count for (owner, cause), count in table.items() if owner is role and count}
    )
    told: Tally[str] = Tally()
    for counted in seconds:
        table.update(counted)
        events = aggregates.take()
        assert len(events) <= 1
        for event in events:
            assert event.kind == "aggregate"
            told.update({name: int(count) for name, count in event.detail.items()})
        assert bool(events) == any(cause in CAUSES for _, cause in counted)
    assert told == Tally({f"{role}.{cause}": count for (role, cause), count in table.items() if cause in CAUSES})


def test_what_strangers_cause_is_told_and_everyday_work_is_not() -> None:
    assert {Counter.BAD_MAC1, Counter.UNKNOWN_PEER, Counter.FLOOD, Counter.REPLAYED, Counter.MALFORMED} <= CAUSES
    assert not {Counter.HANDSHAKE_COMPLETE, Counter.AUDIT_RECORDED} & CAUSES
