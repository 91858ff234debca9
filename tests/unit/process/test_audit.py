"""The sender of audit events: nothing waits, order is kept, and what is lost is said with the next event."""

from hypothesis import given
from hypothesis import strategies as st

from wghsm.ipc import messages as m
from wghsm.process.audit import MEMORY, AuditSender


def event(number: int) -> m.AuditEvent:
    return m.AuditEvent("key.use", "accept", "ok", number)


class Auditor:
    """Takes events while `reads`."""

    def __init__(self) -> None:
        self.reads = True
        self.got: list[m.AuditEvent] = []

    def send(self, message: m.AuditEvent) -> bool:
        if self.reads:
            self.got.append(message)
        return self.reads


def test_what_the_auditor_does_not_take_comes_later_in_order() -> None:
    auditor = Auditor()
    sender = AuditSender(auditor.send, wanted=True)
    sender(event(0))
    auditor.reads = False
    sender(event(1))
    sender(event(2))
    assert not sender.flush()
    auditor.reads = True
    sender(event(3))
    assert [each.at_unix for each in auditor.got] == [0, 1, 2, 3]
    assert not any(each.lost for each in auditor.got)


def test_without_an_auditor_nothing_is_kept() -> None:
    auditor = Auditor()
    sender = AuditSender(auditor.send, wanted=False)
    sender(event(0))
    assert sender.flush()
    assert auditor.got == []


@given(st.lists(st.tuples(st.booleans(), st.integers(1, MEMORY)), max_size=8))
def test_every_event_comes_or_is_counted(phases: list[tuple[bool, int]]) -> None:
    auditor = Auditor()
    sender = AuditSender(auditor.send, wanted=True)
    told = 0
    for reads, count in phases:
        auditor.reads = reads
        for _ in range(count):
            sender(event(told))
            told += 1
    auditor.reads = True
    sender(event(told))
    numbers = [each.at_unix for each in auditor.got]
    assert numbers == sorted(set(numbers))
    missing = 0
    for before, now in zip([-1, *numbers], auditor.got, strict=False):
        assert now.lost == now.at_unix - before - 1
        missing += now.lost
    assert len(auditor.got) + missing == told + 1
