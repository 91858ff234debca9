"""The statistics table: rows and blocks do not overlap, and every mapping sees the same."""

import os

import pytest

from wghsm.ipc import MAX_PEERS, MAX_WORKERS, TUNNEL, Counter, PeerField, Role, StatsFile, create_stats


def test_every_field_of_every_process_and_row_stands_alone() -> None:
    fd = create_stats()
    places = [(role, worker) for role in Role for worker in range(MAX_WORKERS if role in TUNNEL else 1)]
    blocks = {place: StatsFile(fd, *place) for place in places}
    tables = {role: blocks[role, 0] for role in Role}
    for position, table in enumerate(blocks.values(), 1):
        for counter in Counter:
            table.count(counter, position)
    peers = (0, 1, MAX_PEERS - 1)
    for peer in peers:
        for field in PeerField:
            tables[Role.EGRESS].set(peer, field, 100 * peer + field)
    reader = tables[Role.SUPERVISOR]
    for position, place in enumerate(places, 1):
        assert reader.counters(*place) == dict.fromkeys(Counter, position)
    for peer in peers:
        assert [reader.get(peer, field) for field in PeerField] == [100 * peer + field for field in PeerField]
    reader.clear(1)
    assert [reader.get(1, field) for field in PeerField] == [0] * len(PeerField)
    assert reader.get(0, PeerField.LAST_HANDSHAKE_UNIX) == PeerField.LAST_HANDSHAKE_UNIX
    for table in blocks.values():
        table.close()
    os.close(fd)


def test_the_packet_path_writes_where_the_others_read() -> None:
    fd = create_stats()
    writer, reader = StatsFile(fd, Role.INGRESS), StatsFile(fd, Role.HANDSHAKE)
    writer.words[writer.row(5) + PeerField.RX_BYTES] += 1500
    writer.add(5, PeerField.RX_BYTES, 20)
    assert reader.get(5, PeerField.RX_BYTES) == 1520
    os.close(fd)


def test_another_file_is_refused() -> None:
    fd = os.memfd_create("other")
    os.ftruncate(fd, 64 * 1024 * 1024)
    with pytest.raises(ValueError, match="not a statistics table"):
        StatsFile(fd, Role.EGRESS)
    os.close(fd)
