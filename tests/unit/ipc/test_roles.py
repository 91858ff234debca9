"""Seats of workers, and the indices that lead to them."""

from hypothesis import given
from hypothesis import strategies as st

from wghsm.ipc import (
    MAX_WORKERS,
    TUNNEL,
    Role,
    all_seats,
    index_of,
    role_of,
    seat_of,
    worker_bits,
    worker_of,
    worker_of_peer,
)

WORKERS = st.integers(1, MAX_WORKERS)


def test_every_seat_has_a_name_of_its_own() -> None:
    seats = [seat for role in Role for seat in all_seats(role, MAX_WORKERS)]
    assert len(set(seats)) == len(seats) == len(Role) - len(TUNNEL) + len(TUNNEL) * MAX_WORKERS
    for role in Role:
        for worker, seat in enumerate(all_seats(role, MAX_WORKERS)):
            assert (role_of(seat), worker_of(seat)) == (role, worker)
            assert seat == seat_of(role, worker)
    # So that the only worker's process is named as its role is.
    assert all_seats(Role.EGRESS, 1) == ("egress",)


@given(index=st.integers(0, 2**32 - 1), peer=st.integers(0, 65535), workers=WORKERS)
def test_an_index_names_its_peers_worker(index: int, peer: int, workers: int) -> None:
    mask = worker_bits(workers)
    whole = index_of(index, peer, workers)
    assert 0 <= whole < 2**32
    assert whole & mask == worker_of_peer(peer, workers) < workers
    assert whole & ~mask == index & ~mask
    assert index_of(whole, peer, workers) == whole
    assert workers > 1 or whole == index
    # One byte of the datagram is enough to know the worker.
    assert mask < 256
