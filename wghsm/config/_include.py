"""`include:` of a gateway file: the peers of every *.yaml in a folder, as if they stood in the file itself.

    tree of the gateway file -> folders -> files, by name -> their trees -> peers at the end of the gateway file's own

A line of another file is a `Place`, which says so wherever it is written. Called by `_load`, and by what edits peers
in place.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic_core import PydanticCustomError

from wghsm.config import _values as v
from wghsm.config._errors import ConfigError, Problem
from wghsm.config._quick import tree
from wghsm.config._yaml import Document, Raw, Scalar, parse

__all__ = ["Place", "include", "included_files", "peers_in", "problem"]

_PEERS_ONLY = "write peers: and the list of peers; everything else belongs into the gateway file"


class Place(int):
    """A line of another file than the gateway file."""

    file: str

    def __new__(cls, line: int, file: str) -> "Place":
        place = super().__new__(cls, line)
        place.file = file
        return place

    def __format__(self, _spec: str) -> str:
        return f"{int(self)} of {self.file}"


def problem(name: str, line: int, message: str, remedy: str) -> Problem:
    """A fault found in the tree of the gateway file `name`, in the file where it stands."""
    return Problem(line.file if isinstance(line, Place) else name, int(line), message, remedy)


def include(
    document: Document, folder: Path, read: Callable[[str], str], parser: Callable[[str], Document] = parse
) -> None:
    """Put the peers of the included files at the end of the gateway file's peers; faults go to the document.

    `folder` is the gateway file's; `read` gives a file's text or raises ConfigError, `parser` its tree.
    """
    root = document.root
    if not isinstance(root, dict) or "include" not in root:
        return
    own = root.setdefault("peers", [])
    if isinstance(own, Scalar) and own.is_null:
        own = root["peers"] = []
    if not isinstance(own, list):
        return
    document.lines.setdefault(("peers",), document.line(("include",)))
    for file in _files(document, folder):
        try:
            other = parser(read(str(file)))
        except ConfigError as error:
            document.faults += [(Place(each.line, each.file), each.message, each.remedy) for each in error.problems]
            continue
        _graft(document, own, other, str(file))


def included_files(text: str, folder: Path) -> list[Path]:
    """The files that the gateway file with this text includes, in order; `folder` is where it stands."""
    return list(_files(tree(text), folder))


def peers_in(document: Document) -> list[Raw]:
    """The peers in a tree, as they are written."""
    peers = document.root.get("peers") if isinstance(document.root, dict) else None
    return peers if isinstance(peers, list) else []


def _files(document: Document, folder: Path) -> Iterator[Path]:
    written = document.root.get("include") if isinstance(document.root, dict) else None
    for place, raw in enumerate(written if isinstance(written, list) else []):
        try:
            there = folder / v.folder(raw)
        except PydanticCustomError:
            # The model says what is wrong with it.
            continue
        try:
            found = sorted(each for each in there.iterdir() if each.suffix == ".yaml" and each.name[0] != ".")
        except OSError as error:
            line = document.line(("include", place))
            document.faults.append((line, f"the folder {there} cannot be read ({error.strerror})", "make it: mkdir"))
            continue
        yield from found


def _graft(document: Document, own: list[Raw], other: Document, file: str) -> None:
    document.faults += [(Place(line, file), message, remedy) for line, message, remedy in other.faults]
    if not isinstance(other.root, dict) or "peers" not in other.root:
        if not other.faults:
            document.faults.append((Place(1, file), "a file of peers without peers:", _PEERS_ONLY))
        return
    for key in other.root:
        if key != "peers":
            line = Place(other.line((key,)), file)
            document.faults.append((line, "a key other than peers: in a file of peers", _PEERS_ONLY))
    peers = other.root["peers"]
    if not isinstance(peers, list):
        if not (isinstance(peers, Scalar) and peers.is_null):
            message = "peers is not a list", "write a list of peers, each beginning with - name:"
            document.faults.append((Place(other.line(("peers",)), file), *message))
        return
    first = len(own)

    def here(path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        return ("peers", first + int(path[1]), *path[2:])

    document.lines |= {
        here(path): Place(line, file) for path, line in other.lines.items() if len(path) > 1 and path[0] == "peers"
    }
    document.told |= {here(path) for path in other.told if len(path) > 1 and path[0] == "peers"}
    own += peers
