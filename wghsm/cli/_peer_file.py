"""One change of the peers in a gateway file, made safely: two commands at a time do not lose each other's.

    lock -> load -> edit the text of the file that holds the peer -> load what it would be, and compare -> replace

The file (or the one of its `include:` that the peer stands in) keeps its comments, order, owner and mode, and is
replaced whole or not at all. Called by the `peer` commands.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wghsm.cli._output import CommandError
from wghsm.cli._psk_file import locked, new_file, replace_file
from wghsm.config import ConfigError, Gateway, Peer, load, load_peers, peer_place, with_fields, with_peer, without_peer

__all__ = ["Change", "Editing", "Value", "editing", "file_name"]

Value = str | int | bool | list[str]


@dataclass(frozen=True)
class Change:
    """A change that is known to be good: `text` for `file`, and the gateway that it makes. `write` brings it about."""

    file: Path
    text: str
    gateway: Gateway
    is_new: bool = False

    def write(self) -> None:
        """Put it in the file's place. Raises OSError and CommandError."""
        if self.is_new:
            new_file(self.file, self.text.encode())
            self.file.chmod(0o644)
        else:
            replace_file(self.file, self.text)


@dataclass(frozen=True)
class Editing:
    """A gateway file that nobody else changes meanwhile."""

    path: Path
    gateway: Gateway

    def add(self, fields: Mapping[str, Value]) -> Change:
        """A peer more: in the gateway file, or in a file of its own where all its peers are in included ones."""
        name, folders = str(fields["name"]), self.gateway.include
        before = _read(self.path)
        own = load_peers(before.removeprefix("\ufeff"), str(self.path))
        text = with_peer(before, fields)
        after = self._loaded(self.path, text)
        kept = [peer for peer in after.peers if peer.name != name]
        if kept != list(self.gateway.peers) or len(after.peers) != len(kept) + 1:
            raise self._unsafe(self.path)
        if not folders or own:
            return Change(self.path, text, after)
        file = self.path.absolute().parent / folders[0] / f"{file_name(name)}.yaml"
        return Change(file, with_peer("", fields), after, is_new=True)

    def change(self, peer: Peer, fields: Mapping[str, Value | None]) -> Change:
        """Keys of a peer set, or taken out where the value is None."""
        file, place = peer_place(self.path, self.gateway.peers.index(peer))
        text = with_fields(_read(file), place, fields)
        after = self._loaded(file, text)
        for before, now in zip(self.gateway.peers, after.peers, strict=True):
            was = {key: getattr(before, key) for key in fields}
            if before != now and (before != peer or now.model_copy(update=was) != before):
                raise self._unsafe(file)
        return Change(file, text, after)

    def remove(self, peer: Peer) -> Change:
        """A peer less."""
        file, place = peer_place(self.path, self.gateway.peers.index(peer))
        text = without_peer(_read(file), place)
        after = self._loaded(file, text)
        if list(after.peers) != [each for each in self.gateway.peers if each != peer]:
            raise self._unsafe(file)
        return Change(file, text, after)

    def _loaded(self, file: Path, text: str) -> Gateway:
        """What the gateway would be. Raises ConfigError."""
        try:
            after = load(self.path, lambda _: None, {str(file): text})
        except ConfigError as error:
            # Lines of a text that nobody will see.
            raise ConfigError(
                dataclasses.replace(problem, file=f"{file} would be wrong", line=0)
                if problem.file == str(file)
                else problem
                for problem in error.problems
            ) from None
        if after.model_copy(update={"peers": self.gateway.peers}) != self.gateway:
            raise self._unsafe(file)
        return after

    @staticmethod
    def _unsafe(file: Path) -> CommandError:
        return CommandError(f"{file}: this could not be changed without touching something else; edit it by hand")


@contextlib.contextmanager
def editing(path: Path) -> Iterator[Editing]:
    """Hold the gateway file at `path` for one change. Raises ConfigError and OSError."""
    with locked(path):
        yield Editing(path, load(path))


def file_name(name: str) -> str:
    """A file's name for a peer's."""
    return re.sub(r"^[.-]|[^\w.@+-]", "_", name)


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8")
