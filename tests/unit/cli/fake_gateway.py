"""Admin sockets without a gateway behind them, in the folder that `conftest` puts in the place of /run/wghsm."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec

from wghsm.ipc import admin

__all__ = ["answering", "ending", "killed", "listening", "status"]


def status(name: str, file: str = "", peers: Sequence[admin.PeerStatus] = ()) -> admin.Status:
    """What a gateway says that has not opened its token yet."""
    return admin.Status(
        name=name,
        file=file,
        public_key="",
        listen_port=1,
        fwmark=0,
        up=True,
        started=0,
        token=None,
        processes=[],
        peers=list(peers),
        counters={},
    )


@contextlib.contextmanager
def listening(name: str) -> Iterator[socket.socket]:
    """A socket that takes connections, which nobody answers."""
    path = admin.admin_socket_path(name)
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


def killed(name: str) -> None:
    """What is left of a gateway that was killed: a socket that refuses."""
    with listening(name):
        pass


@contextlib.contextmanager
def answering(
    name: str, answer: Callable[[admin.AdminRequest], admin.AdminReply | None] | None = None
) -> Iterator[list[admin.AdminRequest]]:
    """One that answers, with its status if nothing else is given, and closes the connection where that is None.

    What it was asked is in the list.
    """
    asked: list[admin.AdminRequest] = []

    def serve(listener: socket.socket) -> None:
        # Ends when the listener is shut down.
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, client.makefile("rb") as lines:
                    for line in lines:
                        asked.append(msgspec.json.decode(line, type=admin.AdminRequest))
                        reply = admin.AdminReply(status=status(name)) if answer is None else answer(asked[-1])
                        if reply is None:
                            break
                        client.sendall(msgspec.json.encode(reply) + b"\n")

    with listening(name) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield asked
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextlib.contextmanager
def ending(name: str) -> Iterator[None]:
    """One that ends when it is asked: first its control process, then, with the next client waiting, its socket."""

    def end(listener: socket.socket) -> None:
        asked = b""
        while not asked:
            # Whoever only looks whether it listens asks nothing.
            client, _ = listener.accept()
            with client:
                asked = client.recv(1)
        waiting, _ = listener.accept()
        admin.admin_socket_path(name).unlink()
        listener.close()
        waiting.close()

    with listening(name) as listener:
        thread = threading.Thread(target=end, args=(listener,))
        thread.start()
        yield
        thread.join()
