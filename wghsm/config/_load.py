"""Read a gateway file: bytes -> text -> tree -> model, with every fault on the way told by line.

    text --quick--> tree -> model -> no fault: done
         --lined--> tree with lines -> model -> the faults, each with its line

Most files are in order, and may have ten thousand peers; so lines are looked for only where there is something to tell.

Called through `wghsm.config` by the commands and the supervisor.
"""

import contextlib
import gc
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from wghsm.config._conflicts import conflicts
from wghsm.config._errors import ConfigError, Problem
from wghsm.config._include import include, included_files, peers_in, problem
from wghsm.config._model import Gateway, Peer
from wghsm.config._psk import PskWrapped
from wghsm.config._quick import lined, quick, tree
from wghsm.config._unknown import unknown_key
from wghsm.config._yaml import Document

__all__ = ["load", "load_peers", "load_text", "peer_place"]

MAX_BYTES = 16 * 2**20
"""A gateway file is smaller; 10,000 peers need about 2 MB."""

_log = logging.getLogger("wghsm.config")
_Fault = tuple[int, str, str]


def _log_warning(problem: Problem) -> None:
    _log.warning("%s", problem)


def load(
    path: str | os.PathLike[str],
    warn: Callable[[Problem], object] = _log_warning,
    instead: Mapping[str, str] | None = None,
) -> Gateway:
    """Read and check a gateway file, with the files of peers that it includes.

    `warn` gets each `Problem` that does not make the file unusable (a file that anybody may write); by
    default it is logged. `instead`: text in place of what a file holds, to look at a change before it is made.
    Raises ConfigError with every problem; nothing else for whatever the file holds.
    """
    name = os.fspath(path)
    folder = Path(name).absolute().parent
    texts = _Texts(warn, instead or {})
    text = texts.read(name)

    def whole(parser: Callable[[str], Document]) -> Document:
        document = parser(text)
        include(document, folder, texts.read, parser)
        return document

    return _beside(_gateway(whole, name), folder)


class _Texts:
    """Files that are read once, though they may be parsed twice."""

    def __init__(self, warn: Callable[[Problem], object], instead: Mapping[str, str]) -> None:
        self._warn = warn
        self._texts: dict[str, str] = {name: text.removeprefix("\ufeff") for name, text in instead.items()}
        self._told: set[Problem] = set()

    def read(self, name: str) -> str:
        """The text of a file. Raises ConfigError."""
        if name not in self._texts:
            self._texts[name] = _read(name, self._once)
        return self._texts[name]

    def _once(self, problem: Problem) -> None:
        if problem not in self._told:
            self._told.add(problem)
            self._warn(problem)


def _read(name: str, warn: Callable[[Problem], object]) -> str:
    """The text of a gateway file, or of one that it includes. Raises ConfigError."""
    try:
        with open(name, "rb", opener=_open) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError([_not_a_file(name)])
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise ConfigError([_not_a_file(name)]) from None
    except FileNotFoundError:
        remedy = "check the path, or start from an example in configs/"
        raise ConfigError([Problem(name, 0, "there is no such file", remedy)]) from None
    except PermissionError:
        remedy = "run as root, or let this user read it"
        raise ConfigError([Problem(name, 0, "the file may not be read by this user", remedy)]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise ConfigError([Problem(name, 0, f"the file cannot be read ({reason})", "check the path")]) from None
    if status.st_mode & stat.S_IWOTH:
        remedy = "take the right away with chmod o-w"
        warn(Problem(name, 0, "anybody may write this file, and so choose the peers", remedy))
    if len(data) > MAX_BYTES:
        raise ConfigError([Problem(name, 0, f"the file has more than {MAX_BYTES} bytes", "name a YAML gateway file")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(name, line, "bytes that are not UTF-8", "save the file as UTF-8")]) from None


def _beside(gateway: Gateway, folder: Path) -> Gateway:
    """The gateway with the files of wrapped PSKs as paths from its own folder."""
    if not any(isinstance(peer.preshared_key, PskWrapped) for peer in gateway.peers):
        return gateway
    return gateway.model_copy(
        update={
            "peers": tuple(
                peer.model_copy(update={"preshared_key": PskWrapped(folder / peer.preshared_key.file)})
                if isinstance(peer.preshared_key, PskWrapped)
                else peer
                for peer in gateway.peers
            )
        }
    )


def _open(path: str, flags: int) -> int:
    # Non-blocking: a FIFO at this path must not hang the gateway.
    return os.open(path, flags | os.O_NONBLOCK)


def _not_a_file(name: str) -> Problem:
    return Problem(name, 0, "this is not a regular file", "name a YAML gateway file")


def load_text(text: str, name: str = "<text>") -> Gateway:
    """Check the text of a gateway file alone: what it includes is not read. `name` stands in the problems.

    Raises ConfigError, nothing else.
    """
    return _gateway(lambda parser: parser(text), name)


def load_peers(text: str, name: str = "<text>") -> tuple[Peer, ...]:
    """The peers in the text of a file that gateway files include, checked one by one. Raises ConfigError."""
    document = tree(text)
    if document.faults:
        raise ConfigError(problem(name, *fault) for fault in document.faults)
    try:
        return tuple(Peer.model_validate(peer) for peer in peers_in(document))
    except ValidationError:
        remedy = "see what wghsm check says of the gateway file"
        raise ConfigError([Problem(name, 0, "a peer in this file cannot be used", remedy)]) from None


def peer_place(path: Path, position: int) -> tuple[Path, int]:
    """The file that the peer at `position` of the gateway file stands in, and its position there.

    Raises ConfigError; IndexError if there is no such peer.
    """
    text = _read(str(path), _log_warning)
    for file in (path, *included_files(text, path.absolute().parent)):
        here = len(peers_in(tree(_read(str(file), _log_warning))))
        if position < here:
            return file, position
        position -= here
    raise IndexError("there is no such peer")


def _gateway(whole: Callable[[Callable[[str], Document]], Document], name: str) -> Gateway:
    """The gateway of the tree that `whole` makes with a parser. Raises ConfigError."""
    with _no_collections():
        gateway, faults = _validate(whole(quick))
        if gateway is not None and not faults:
            _share_names(gateway)
            return gateway
        gateway, faults = _validate(whole(lined))
    if gateway is None or faults:
        raise ConfigError(problem(name, *fault) for fault in faults)
    return gateway


def _share_names(gateway: Gateway) -> None:
    """Let all peers with the same fields have one set of their names, not one each: 7 MB with ten thousand peers."""
    known: dict[frozenset[str], set[str]] = {}
    for peer in gateway.peers:
        names = peer.model_fields_set
        object.__setattr__(peer, "__pydantic_fields_set__", known.setdefault(frozenset(names), names))


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """A tree of many peers is objects that all stay: looking for cycles among them takes as long as making them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _validate(document: Document) -> tuple[Gateway | None, list[_Fault]]:
    faults = list(document.faults)
    if document.root is None or not isinstance(document.root, dict):
        if not faults:
            faults.append((1, "the file holds no settings", "start from an example in configs/"))
        return None, faults
    gateway = None
    try:
        gateway = Gateway.model_validate(document.root)
    except ValidationError as error:
        faults += _field_faults(document, error)
    faults += conflicts(document, gateway)
    return gateway, faults


def _field_faults(document: Document, error: ValidationError) -> Iterator[_Fault]:
    for details in error.errors(include_url=False, include_input=False):
        message, remedy = _words(details)
        if details["loc"] not in document.told:
            yield document.line(details["loc"]), message, remedy


_MISSING = {
    "version": "write version: 1 at the top",
    "token": "write token: and under it uri: with the token's pkcs11: URI",
    "interface": "write interface: and under it name: and key:",
    "uri": "write uri: with the token's pkcs11: URI",
    "key": "write key: with the label of the gateway's key in the token",
    "name": "write name:",
    "public_key": "write public_key: with the 44 characters of the peer's public key",
    "preshared_key": "write preshared_key: derived, wrapped:FILE, object:LABEL or none",
    "allowed_ips": "write allowed_ips: with a list of prefixes; [] for none",
}


def _words(details: ErrorDetails) -> tuple[str, str]:
    """Message and remedy of one pydantic error, without its input."""
    loc, kind = details["loc"], details["type"]
    last = str(loc[-1]) if loc else ""
    if kind == "wghsm":
        context = details["ctx"]
        return str(context["problem"]), str(context["remedy"])
    if kind == "extra_forbidden":
        return unknown_key(loc)
    if kind == "missing":
        where = {1: "at the top of the file", 2: f"under {loc[0]}:"}.get(len(loc), "in this peer")
        return f"{last} is missing {where}", _MISSING[last]
    if kind == "tuple_type":
        example = "a list of peers, each beginning with - name:" if last == "peers" else "a list, such as [ONE, TWO]"
        return f"{last} is not a list", f"write {example}"
    if len(loc) == 2 and loc[0] == "peers":
        return "a peer is not a group of settings", "write - name: NAME, and the peer's other keys below"
    return f"{last} is not a group of settings", f"write {last}: and its keys below, indented"
