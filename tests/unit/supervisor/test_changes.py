"""The order in which a change is told: pure, with processes that answer in any order, die and come back."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.supervisor.support import KEYS, change, two_peers
from wghsm.ipc import Role, Seat
from wghsm.ipc import messages as m
from wghsm.supervisor.changes import Changes, Finished, Step, plan, route_parts
from wghsm.supervisor.model import Model, applied, difference

ROLES = (Role.CUSTODIAN, Role.HANDSHAKE, Role.EGRESS, Role.INGRESS)


def a_change(workers: int = 1) -> list[list[Step]]:
    """A peer goes, a peer comes and takes its prefix, another one's endpoint moves."""
    old = two_peers()
    wanted = change(
        m.PeerChange(KEYS[0], remove=True),
        m.PeerChange(KEYS[7], add_allowed_ips=["10.0.0.0/24"], endpoint=m.Endpoint("192.0.2.1", 1)),
        m.PeerChange(KEYS[1], endpoint=m.Endpoint("192.0.2.2", 2)),
    )
    new = applied(old, wanted, runtime_psks=False, own_key=None)
    assert isinstance(new, Model)
    numbers = itertools.count(100)
    endpoints = {1: m.Endpoint("192.0.2.2", 2), 2: m.Endpoint("192.0.2.1", 1), 5: m.Endpoint("192.0.2.9", 9)}
    sockets = m.UdpSockets(99, 5000, ["4", "6"])
    return plan(difference(old, new, wanted), lambda: next(numbers), endpoints, sockets, workers)


def answer(step: Step) -> m.Applied | m.Prepared | None:
    if step.answer is None:
        return None
    kind, number = step.answer
    return m.Prepared(number) if kind is m.Prepared else m.Applied(number)


def everyone() -> Changes:
    changes = Changes()
    for role in ROLES:
        assert changes.joined(role) == []
        changes.ready(role)
    return changes


def kinds(steps: Iterable[Step | Finished]) -> list[tuple[Seat, str]]:
    return [(step.role, type(step.message).__name__) for step in steps if isinstance(step, Step)]


def test_the_order_of_a_change() -> None:
    changes = everyone()
    effects = changes.begin(1, a_change())
    seen = []
    while True:
        seen.append(kinds(effects))
        steps = [effect for effect in effects if isinstance(effect, Step)]
        if not steps:
            break
        effects = [effect for step in steps if (said := answer(step)) for effect in changes.answered(step.role, said)]
    assert effects == [Finished(1)]
    assert seen == [
        [(Role.INGRESS, "UdpSockets"), (Role.EGRESS, "UdpSockets"), (Role.HANDSHAKE, "UdpSockets")],
        [(Role.HANDSHAKE, "HandshakePeers"), (Role.CUSTODIAN, "CustodianPeers")],
        [
            (Role.INGRESS, "TunnelPeers"),
            (Role.EGRESS, "TunnelPeers"),
            (Role.INGRESS, "Routes"),
            (Role.EGRESS, "Routes"),
        ],
        [(Role.INGRESS, "RoutesCommit")],
        [(Role.EGRESS, "RoutesCommit")],
        [(Role.INGRESS, "TunnelPeers"), (Role.EGRESS, "TunnelPeers"), (Role.CUSTODIAN, "CustodianPeers")],
        [(Role.HANDSHAKE, "HandshakePeers")],
        [],
    ]


def test_every_ingress_commits_before_any_egress() -> None:
    stages = [kinds(stage) for stage in a_change(workers=3)]
    commits = [[seat for seat, kind in stage if kind == "RoutesCommit"] for stage in stages]
    assert [stage for stage in commits if stage] == [
        ["ingress", "ingress-1", "ingress-2"],
        ["egress", "egress-1", "egress-2"],
    ]
    told = {kind for stage in stages for seat, kind in stage if seat == "egress-2"}
    assert told == {"UdpSockets", "TunnelPeers", "Routes", "RoutesCommit"}


def test_endpoints_go_out_only_where_the_change_names_them() -> None:
    last = a_change()[-1][0].message
    assert isinstance(last, m.HandshakePeers)
    assert {peer.peer: peer.endpoint for peer in last.upsert} == {
        2: m.Endpoint("192.0.2.1", 1),
        1: m.Endpoint("192.0.2.2", 2),
    }


def test_a_second_change_has_to_wait() -> None:
    changes = everyone()
    changes.begin(1, a_change())
    assert changes.busy
    assert changes.waits_for == {Role.INGRESS, Role.EGRESS, Role.HANDSHAKE}
    with pytest.raises(RuntimeError):
        changes.begin(2, a_change())


def test_without_processes_a_change_is_done_at_once() -> None:
    changes = Changes()
    assert changes.begin(1, a_change()) == [Finished(1)]
    assert not changes.busy


def test_a_change_of_nothing_is_done_at_once() -> None:
    assert everyone().begin(1, []) == [Finished(1)]


def test_a_starting_process_hears_of_it_and_is_not_waited_for() -> None:
    changes = Changes()
    changes.joined(Role.CUSTODIAN)
    effects = changes.begin(1, a_change())
    assert kinds(effects) == [(Role.CUSTODIAN, "CustodianPeers"), (Role.CUSTODIAN, "CustodianPeers")]
    assert effects[-1] == Finished(1)


def test_a_successor_hears_what_its_role_was_told() -> None:
    changes = everyone()
    stages = a_change()
    changes.begin(1, stages)
    for step in stages[0]:
        said = answer(step)
        assert said is not None
        changes.answered(step.role, said)
    changes.left(Role.CUSTODIAN)
    assert kinds(changes.joined(Role.CUSTODIAN)) == [(Role.CUSTODIAN, "CustodianPeers")]
    # Its first settings bring the sockets as they are now.
    changes.left(Role.HANDSHAKE)
    assert kinds(changes.joined(Role.HANDSHAKE)) == [(Role.HANDSHAKE, "HandshakePeers")]


def test_many_routes_go_in_parts() -> None:
    routes = [m.Route(number.to_bytes(4, "big"), 32, 1) for number in range(4500)]
    parts = list(route_parts(routes, 7))
    assert [len(part.routes) for part in parts] == [2000, 2000, 500]
    assert [part.last for part in parts] == [False, False, True]
    assert [part.last for part in route_parts([], 7)] == [True]


class _World:
    """Processes that keep what they were told, in the order it came, and answer when they are asked to."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.told: dict[Seat, list[m.Message]] = {}
        self.unanswered: list[tuple[Seat, m.Applied | m.Prepared]] = []
        self.serving: set[Role] = set()
        self.committed: set[Seat] = set()
        self.finished: list[int] = []
        for role in ROLES:
            self.join(role)
            self.serve(role)

    def join(self, role: Role) -> None:
        # The settings from before the change stand for an empty list.
        self.told[role] = []
        self.take(self.changes.joined(role))

    def serve(self, role: Role) -> None:
        self.serving.add(role)
        self.changes.ready(role)

    def leave(self, role: Role) -> None:
        del self.told[role]
        self.serving.discard(role)
        self.unanswered = [item for item in self.unanswered if item[0] != role]
        self.take(self.changes.left(role))

    def answer(self, position: int) -> None:
        role, said = self.unanswered.pop(position)
        if isinstance(said, m.Applied) and any(
            isinstance(message, m.RoutesCommit) and message.change == said.change for message in self.told[role]
        ):
            self.committed.add(role)
        self.take(self.changes.answered(role, said))

    def take(self, effects: Iterable[Step | Finished]) -> None:
        for effect in effects:
            if isinstance(effect, Finished):
                self.finished.append(effect.change)
                continue
            if (
                effect.role == Role.EGRESS
                and isinstance(effect.message, m.RoutesCommit)
                and Role.INGRESS in self.serving
                and Role.INGRESS not in self.committed
            ):
                # Only if the ingress that serves is a successor, which was told the commit when it came.
                assert any(isinstance(message, m.RoutesCommit) for message in self.told[Role.INGRESS])
            self.told[effect.role].append(effect.message)
            if said := answer(effect):
                self.unanswered.append((effect.role, said))


@settings(deadline=None)
@given(st.data())
def test_whoever_dies_the_change_ends_and_everybody_has_it(data: st.DataObject) -> None:
    stages = a_change()
    world = _World()
    world.take(world.changes.begin(1, stages))
    for _ in range(60):
        alive = [role for role in ROLES if role in world.told]
        moves = [("answer", number) for number in range(len(world.unanswered))]
        moves += [("leave", ROLES.index(role)) for role in alive]
        moves += [("join", ROLES.index(role)) for role in ROLES if role not in world.told]
        moves += [("serve", ROLES.index(role)) for role in alive if role not in world.serving]
        verb, number = data.draw(st.sampled_from(moves))
        match verb:
            case "answer":
                world.answer(number)
            case "leave":
                world.leave(ROLES[number])
            case "join":
                if world.finished:
                    # From now on the first settings are the new ones.
                    world.told[ROLES[number]] = []
                    assert world.changes.joined(ROLES[number]) == []
                else:
                    world.join(ROLES[number])
            case _:
                world.serve(ROLES[number])
    while world.unanswered:
        world.answer(0)
    assert world.finished == [1]
    assert not world.changes.busy


@settings(deadline=None)
@given(st.data())
def test_a_process_that_lived_through_it_was_told_everything_in_order(data: st.DataObject) -> None:
    stages = a_change()
    world = _World()
    survivors = set(ROLES)
    world.take(world.changes.begin(1, stages))
    while not world.finished:
        if data.draw(st.booleans()):
            role = data.draw(st.sampled_from(ROLES))
            if role in world.told:
                world.leave(role)
                survivors.discard(role)
                if not world.finished:
                    world.join(role)
                continue
        if world.unanswered:
            world.answer(data.draw(st.integers(0, len(world.unanswered) - 1)))
    for role in survivors:
        assert world.told[role] == [step.message for stage in stages for step in stage if step.role is role]
    for seat in set(world.told) - survivors:
        expected = [step.message for stage in stages for step in stage if step.role == seat and step.replay]
        told = [message for message in world.told[seat] if not isinstance(message, m.UdpSockets)]
        assert told == expected
