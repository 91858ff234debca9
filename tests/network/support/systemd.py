"""A machine of the tests: a real systemd as the first process of its own namespaces, with our units installed.

    machine = lab.add(Machine(namespace, lab.scratch))       booted, its journal running
    machine.run("systemctl", "start", "wghsm@wg0")           as root inside; /etc, /usr and /var are copies on write
    machine.write("/etc/wghsm/wg0.yaml", text)

The network is the namespace's. Needs cgroup v2 mounted somewhere, and the Debian package systemd.
"""

import contextlib
import os
import secrets
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.network.support.netns import Namespace
from tests.network.support.process import Process, until

__all__ = ["UNITS", "Machine"]

UNITS = "/run/units"
"""Where a machine has its units."""

_ROOT = Path(__file__).parents[3]
_BOOT = Path(__file__).with_name("_systemd_machine.sh")


class Machine:
    """One machine; `close` ends everything in it."""

    def __init__(self, namespace: Namespace, scratch: Path) -> None:
        """Boot it: TimeoutError if systemd does not come up."""
        name = f"wghsm-{os.getpid()}-{secrets.token_hex(3)}"
        self._process: Process | None = None
        self._cgroup = _unified_hierarchy() / name
        self._folder = scratch / name
        self._folder.mkdir()
        self._cgroup.mkdir()
        try:
            # A tmpfs of its own: an overlay cannot write to an overlay, which the scratch folder may be on.
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(self._folder)], check=True, capture_output=True)
            self._process = Process(["bash", "-c", self._boot(namespace)], scratch, name)
            self._first = until(self._child, "the machine's first process")
            until(self._is_up, "systemd is up", 60.0)
        except BaseException:
            self.close()
            raise

    def _boot(self, namespace: Namespace) -> str:
        # Not `ip netns exec`, which puts a /sys without cgroups into its place.
        words = ["nsenter", f"--net=/run/netns/{namespace.name}", "--"]
        words += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--cgroup", "--ipc", "--uts"]
        program = Path(sys.executable).with_name("wghsm")
        words += ["bash", *map(str, (_BOOT, self._folder, _ROOT, program))]
        return f"echo 0 >{shlex.quote(str(self._cgroup / 'cgroup.procs'))} && exec {shlex.join(words)}"

    def _child(self) -> int | None:
        process = self._process
        if process is None or process.returncode is not None:
            raise RuntimeError(f"the machine has ended: {process.stderr() if process else ''}")
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/comm").read_text() == "systemd\n":
                return int(children[0])
        return None

    def _is_up(self) -> bool:
        return self.run("systemctl", "is-active", "machine.target", "systemd-journald", check=False).returncode == 0

    def run(
        self, *argv: str | Path, check: bool = True, limit: float = 120.0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; RuntimeError with the journal if it fails and `check` holds."""
        spaces = ["--mount", "--pid", "--net", "--cgroup", "--ipc", "--uts"]
        full = ["nsenter", "--target", str(self._first), *spaces, "--", *map(str, argv)]
        environment = {**os.environ, "SYSTEMD_UNIT_PATH": UNITS}
        done = subprocess.run(
            full, input=stdin, capture_output=True, text=True, timeout=limit, check=False, env=environment
        )
        if check and done.returncode:
            said = f"{shlex.join(map(str, argv))}: exit {done.returncode}: {done.stdout}{done.stderr}"
            raise RuntimeError(f"{said}\n{self.journal()}")
        return done

    def journal(self, unit: str = "") -> str:
        """What the journal holds, of one unit or all."""
        return self.run("journalctl", "--no-pager", "-o", "cat", *(["-u", unit] if unit else []), check=False).stdout

    def write(self, path: str, text: str) -> None:
        """Write a file inside, with its folders."""
        self.run("bash", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "bash", path, stdin=text)

    def close(self) -> None:
        """End it, with all that runs inside."""
        if self._process is not None:
            # The first process of a pid namespace takes everything with it; it goes when unshare is killed.
            self._process.signal(signal.SIGKILL)
            self._process.wait()
        subprocess.run(["umount", "-l", str(self._folder)], check=False, capture_output=True)
        until(self._is_gone, "the machine's processes have ended")

    def _is_gone(self) -> bool:
        for folder, _, _ in os.walk(self._cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        return not self._cgroup.exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unified_hierarchy() -> Path:
    """Where cgroup v2 is mounted. RuntimeError if it is nowhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise RuntimeError("cgroup v2 is not mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
