"""Whoever deletes, moves or replaces the file of the UAPI socket is heard; nothing else about it matters."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wghsm.process import Loop
from wghsm.supervisor._socket_news import SocketNews
from wghsm.supervisor._sockets import UnixListener


def _replace(path: Path) -> None:
    path.with_name("new").touch()
    path.with_name("new").replace(path)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Loop, Path, list[str]]]:
    loop, gone = Loop(), list[str]()
    with contextlib.closing(loop), contextlib.closing(UnixListener(tmp_path / "wg.sock")) as listener:
        news = SocketNews(loop, listener, lambda: gone.append("gone"))
        yield loop, listener.path, gone
        news.close()


@pytest.mark.parametrize(
    "remove", [Path.unlink, lambda path: path.rename(path.with_name("away")), _replace], ids=["unlink", "move", "other"]
)
def test_a_file_that_is_gone_is_told_once(
    watched: tuple[Loop, Path, list[str]], remove: Callable[[Path], object]
) -> None:
    loop, path, gone = watched
    remove(path)
    for _ in range(3):
        loop.run_once(0.01)
    assert gone == ["gone"]


def test_what_leaves_the_file_there_is_nothing(watched: tuple[Loop, Path, list[str]]) -> None:
    loop, path, gone = watched
    path.chmod(0o600)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
    path.with_name("beside").touch()
    for _ in range(3):
        loop.run_once(0.01)
    assert gone == []
