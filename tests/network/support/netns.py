"""Network namespaces with unique names, and the virtual cables between them.

    left --- veth --- right        10.77.N.1/24 and fd77:N::1/64  ---  10.77.N.2/24 and fd77:N::2/64

Called by the laboratory (lab.py), which also removes what is made here.
"""

import atexit
import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.network.support.process import Process, until

# An interrupt may come between the making of a namespace and its owner's note of it: whatever stands here at exit goes.
_live: set["Namespace"] = set()


@atexit.register
def _close_all() -> None:
    for namespace in list(_live):
        namespace.close()


class Namespace:
    """One network namespace with its loopback up; `close` kills what still runs in it and removes it."""

    def __init__(self, hint: str = "ns") -> None:
        """Make it; `hint` is a short word for its name, which is unique over runs."""
        self.name = f"wghsm-{os.getpid()}-{hint}-{secrets.token_hex(3)}"
        self._closed = False
        _live.add(self)
        try:
            subprocess.run(["ip", "netns", "add", self.name], check=True, capture_output=True)
            self.run("ip", "link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    def argv(self, *argv: str | Path) -> list[str]:
        """Give the command line that runs `argv` inside."""
        return ["ip", "netns", "exec", self.name, *map(str, argv)]

    def run(
        self,
        *argv: str | Path,
        stdin: str = "",
        check: bool = True,
        limit: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; raises RuntimeError with its output when it fails and `check` holds."""
        done = subprocess.run(
            self.argv(*argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
            env={**os.environ, **(env or {})},
        )
        if check and done.returncode != 0:
            command = " ".join(map(str, argv))
            raise RuntimeError(f"{self.name}: {command}: exit {done.returncode}: {done.stderr.strip() or done.stdout}")
        return done

    def start(self, *argv: str | Path, folder: Path, label: str, env: Mapping[str, str] | None = None) -> Process:
        """Start a command inside; its process id is the command's own."""
        return Process(self.argv(*argv), folder, label, env)

    def start_python(self, script: Path, *arguments: str, folder: Path, label: str) -> Process:
        """Start a Python file inside, with the interpreter of the tests."""
        return self.start(sys.executable, "-u", script, *arguments, folder=folder, label=label)

    def interfaces(self) -> set[str]:
        """Give the names of the interfaces inside."""
        lines = self.run("ip", "-brief", "link").stdout.splitlines()
        return {line.split()[0].split("@")[0] for line in lines}

    def close(self) -> None:
        """Kill what still runs inside and remove it, with every interface that lives in it."""
        if self._closed:
            return
        self._closed = True
        _live.discard(self)
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        for pid in found.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class End:
    """One end of a cable: its namespace, interface and addresses without prefix length."""

    namespace: Namespace
    interface: str
    ipv4: str
    ipv6: str

    def address(self, family: int) -> str:
        """Give the address of family 4 or 6."""
        return self.ipv4 if family == 4 else self.ipv6

    def endpoint(self, family: int, port: int) -> str:
        """Give `address:port` as wg(8) writes it, with brackets around IPv6."""
        return f"{self.ipv4}:{port}" if family == 4 else f"[{self.ipv6}]:{port}"


@dataclass(frozen=True)
class Link:
    """A cable between two namespaces."""

    left: End
    right: End

    def cut(self) -> None:
        """Take the left end down."""
        self.left.namespace.run("ip", "link", "set", self.left.interface, "down")

    def mend(self) -> None:
        """Take the left end up again; IPv6 addresses went with the cut and come back."""
        self.left.namespace.run("ip", "link", "set", self.left.interface, "up")
        add_address(self.left.namespace, self.left.interface, f"{self.left.ipv6}/64")


def add_address(namespace: Namespace, interface: str, address: str, limit: float = 30.0) -> None:
    """Give `interface` an address with prefix length, IPv6 without duplicate detection; return once it is answered for.

    Raises TimeoutError after `limit` seconds.
    """
    if ":" not in address:
        namespace.run("ip", "address", "replace", address, "dev", interface)
        return
    namespace.run("ip", "address", "replace", address, "dev", interface, "nodad")
    bare = address.partition("/")[0]

    def is_local() -> bool:
        return namespace.run("ip", "-6", "route", "get", bare, check=False).stdout.startswith("local ")

    # The kernel's work queue makes an IPv6 address local a moment later, on a busy machine some 200 ms: what arrives
    # before that is lost.
    until(is_local, f"{bare} is local", limit)


def connect(left: Namespace, right: Namespace, number: int, mtu: int = 1500) -> Link:
    """Lay a cable; `number` (0 to 255) makes its interface names and addresses, see the module's drawing."""
    interface = f"veth{number}"
    left.run(
        *["ip", "link", "add", interface, "mtu", str(mtu), "type", "veth"],
        *["peer", "name", interface, "mtu", str(mtu), "netns", right.name],
    )
    ends = []
    for namespace, host in ((left, 1), (right, 2)):
        end = End(namespace, interface, f"10.77.{number}.{host}", f"fd77:{number}::{host}")
        namespace.run("ip", "link", "set", interface, "up")
        add_address(namespace, interface, f"{end.ipv4}/24")
        add_address(namespace, interface, f"{end.ipv6}/64")
        ends.append(end)
    return Link(ends[0], ends[1])
