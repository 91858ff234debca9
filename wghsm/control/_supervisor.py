"""Asking the supervisor and the custodian: numbered requests out, callbacks when the answers come.

Called by `_service`. Nothing is asked twice; a request whose process has died is answered with EIO.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from wghsm.ipc import ChannelKind
from wghsm.ipc import messages as m
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wghsm.process import Child

    _DeviceAnswer = Callable[[m.DeviceView, list[m.PeerView]], None]

__all__ = ["Requests"]

_PREFIXES_A_MESSAGE = 2000
_PEERS_A_MESSAGE = 500
_DEVICES_AT_ONCE = 4


class Requests:
    """The requests of this process that wait for an answer."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._number = 0
        self._wanted: deque[_DeviceAnswer] = deque()
        self._devices: dict[int, tuple[_DeviceAnswer, list[m.DevicePart]]] = {}
        self._results: dict[int, Callable[[int, str], None]] = {}
        self._statuses: dict[int, tuple[Callable[[m.StatusPart], None], list[m.InactivePeer]]] = {}
        self._psks: dict[int, Callable[[int, str], None]] = {}
        self._reloads: dict[int, Callable[[m.ReloadResult], None]] = {}
        self._configs: dict[int, tuple[Callable[[bytes], None], bytearray]] = {}
        child.on(child.home, m.DevicePart, self._device_part)
        child.on(child.home, m.RequestResult, self._result)
        child.on(child.home, m.StatusPart, self._status)
        child.on(child.home, m.ReloadResult, self._reload_result)
        child.on(child.home, m.ConfigPart, self._config_part)
        child.on(ChannelKind.CONTROL_CUSTODIAN, m.PskResult, self._psk_result)
        child.on_detach(ChannelKind.CONTROL_CUSTODIAN, self._custodian_gone)

    def device(self, answer: _DeviceAnswer) -> None:
        """The device and all its peers."""
        self._wanted.append(answer)
        self._next_device()

    def _next_device(self) -> None:
        # What is asked for at once is bounded: each answer may be of very many peers.
        while self._wanted and len(self._devices) < _DEVICES_AT_ONCE:
            number = self._next()
            self._devices[number] = (self._wanted.popleft(), [])
            self._child.report(m.DeviceGet(number))

    def status(self, answer: Callable[[m.StatusPart], None]) -> None:
        """The gateway's processes and token, and the peers that are not served."""
        number = self._next()
        self._statuses[number] = (answer, [])
        self._child.report(m.StatusGet(number))

    def change(
        self,
        change: m.DeviceChange,
        answer: Callable[[int, str], None],
        *,
        check_only: bool = False,
        who: m.Asker | None = None,
    ) -> None:
        """Apply `change`, or only ask whether it could be; the answer is 0 or a positive errno, and a line."""
        number = self._next()
        self._results[number] = answer
        parts = list(_parts(change))
        for position, part in enumerate(parts, 1):
            self._child.report(m.DeviceSet(number, part, position == len(parts), check_only, who))

    def rekey(self, peers: list[bytes] | None, answer: Callable[[int, str], None]) -> None:
        """Start handshakes with `peers` (public keys) or with all."""
        number = self._next()
        self._results[number] = answer
        self._child.report(m.RekeyRequest(number, peers))

    def forget_timestamps(
        self, peers: list[bytes], answer: Callable[[int, str], None], who: m.Asker | None = None
    ) -> None:
        """Forget the greatest timestamps of `peers` (public keys)."""
        number = self._next()
        self._results[number] = answer
        self._child.report(m.ForgetTimestamps(number, peers, who))

    def stop(self, answer: Callable[[int, str], None], who: m.Asker | None = None) -> None:
        """End the gateway."""
        number = self._next()
        self._results[number] = answer
        self._child.report(m.StopRequest(number, who))

    def reload(
        self, file: str, answer: Callable[[m.ReloadResult], None], who: m.Asker | None = None, *, login: bool = False
    ) -> None:
        """Read the gateway's file again, which `file` may name; `login`: and log in to the token anew."""
        number = self._next()
        self._reloads[number] = answer
        self._child.report(m.ReloadRequest(number, file, who, login))

    def config(self, answer: Callable[[bytes], None]) -> None:
        """What the gateway has loaded and what it runs with: the JSON of an admin.Config."""
        number = self._next()
        self._configs[number] = (answer, bytearray())
        self._child.report(m.ConfigGet(number))

    def put_psk(self, label: str, psk: bytearray, answer: Callable[[int, str], None]) -> None:
        """Write `psk` (32 bytes, wiped here) into the token under `label`."""
        number = self._next()
        self._psks[number] = answer
        message = m.PutPsk(number, label, bytes(psk))
        sent = self._child.send(ChannelKind.CONTROL_CUSTODIAN, message)
        wipe(message.psk)
        wipe(psk)
        if not sent:
            del self._psks[number]
            answer(errno.EIO, "the custodian is not there")

    def delete_psk(self, label: str, answer: Callable[[int, str], None]) -> None:
        """Remove the PSK object under `label`."""
        number = self._next()
        self._psks[number] = answer
        if not self._child.send(ChannelKind.CONTROL_CUSTODIAN, m.DeletePsk(number, label)):
            del self._psks[number]
            answer(errno.EIO, "the custodian is not there")

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _device_part(self, part: m.DevicePart, _fds: list[int]) -> None:
        answer, parts = self._devices[part.request]
        parts.append(part)
        if part.last:
            del self._devices[part.request]
            self._next_device()
            device = parts[0].device
            if device is not None:
                answer(device, _joined([peer for each in parts for peer in each.peers]))

    def _result(self, message: m.RequestResult, _fds: list[int]) -> None:
        self._results.pop(message.request)(message.errno, message.text)

    def _status(self, message: m.StatusPart, _fds: list[int]) -> None:
        answer, inactive = self._statuses[message.request]
        inactive += message.inactive
        if message.last:
            del self._statuses[message.request]
            answer(msgspec.structs.replace(message, inactive=inactive))

    def _reload_result(self, message: m.ReloadResult, _fds: list[int]) -> None:
        self._reloads.pop(message.request)(message)

    def _config_part(self, part: m.ConfigPart, _fds: list[int]) -> None:
        answer, data = self._configs[part.request]
        data += part.data
        if part.last:
            del self._configs[part.request]
            answer(bytes(data))

    def _psk_result(self, message: m.PskResult, _fds: list[int]) -> None:
        if answer := self._psks.pop(message.request, None):
            answer(message.errno, message.text)

    def _custodian_gone(self) -> None:
        waiting, self._psks = self._psks, {}
        for answer in waiting.values():
            answer(errno.EIO, "the custodian is not there")


def _joined(views: list[m.PeerView]) -> list[m.PeerView]:
    """The peers; one with very many prefixes has come in several views, one after the other."""
    peers: list[m.PeerView] = []
    for view in views:
        if peers and peers[-1].public_key == view.public_key:
            prefixes = [*peers[-1].allowed_ips, *view.allowed_ips]
            peers[-1] = msgspec.structs.replace(peers[-1], allowed_ips=prefixes)
        else:
            peers.append(view)
    return peers


def _parts(change: m.DeviceChange) -> Iterator[m.DeviceChange]:
    """`change` in messages of bearable size; a peer with many prefixes is continued with update_only."""
    first = m.DeviceChange(change.listen_port, change.fwmark, change.replace_peers)
    peers: list[m.PeerChange] = []
    weight = 0
    for peer in (piece for whole in change.peers for piece in _pieces(whole)):
        cost = len(peer.add_allowed_ips) + len(peer.remove_allowed_ips)
        if peers and (len(peers) >= _PEERS_A_MESSAGE or weight + cost > _PREFIXES_A_MESSAGE):
            yield msgspec.structs.replace(first, peers=peers)
            first, peers, weight = m.DeviceChange(), [], 0
        peers.append(peer)
        weight += cost
    yield msgspec.structs.replace(first, peers=peers)


def _pieces(peer: m.PeerChange) -> Iterator[m.PeerChange]:
    adds, drops = peer.add_allowed_ips, peer.remove_allowed_ips
    if len(adds) + len(drops) <= _PREFIXES_A_MESSAGE:
        yield peer
        return
    yield msgspec.structs.replace(peer, add_allowed_ips=[], remove_allowed_ips=[])
    for start in range(0, len(adds), _PREFIXES_A_MESSAGE):
        chunk = adds[start : start + _PREFIXES_A_MESSAGE]
        yield m.PeerChange(peer.public_key, update_only=True, add_allowed_ips=chunk)
    for start in range(0, len(drops), _PREFIXES_A_MESSAGE):
        chunk = drops[start : start + _PREFIXES_A_MESSAGE]
        yield m.PeerChange(peer.public_key, update_only=True, remove_allowed_ips=chunk)
