"""A gateway from its first to its last moment: everything that is made here is taken away here.

    lock -> TUN -> UDP and UNIX sockets -> link, addresses, routes, rules -> privileges -> hooks -> children -> loop
         <-            (all of it in reverse, whatever happened)            <-

Called by the `wghsm` command and by tests, as `wghsm.supervisor.run`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import TYPE_CHECKING

from wghsm.config import ConfigError, read_wrapped_files
from wghsm.exits import ExitCode
from wghsm.ipc import Role, StatsFile, create_stats
from wghsm.process import Loop, configure_log, settle_anew
from wghsm.process.privileges import Capability, reduce

from ._children import Settings
from ._fault import GatewayFault
from ._filter import PacketFilter
from ._hooks import run_down, run_up
from ._inboxes import Inboxes
from ._links import Links, LinkStatus, LinkWatch
from ._notify import Watchdog, tell_systemd
from ._path_mtu import known_endpoints
from ._policy import outer_mark, ways
from ._runtime import GatewayLock, runtime_directory, uapi_socket_path
from ._signals import SignalWatch
from ._socket_news import SocketNews
from ._sockets import UdpPair, UnixListener
from ._startup import deadline, environment, users, wants_pinpad, wants_prompt
from ._state import State
from ._steering import Steering
from ._supervisor import Supervisor, pairs
from ._tun import Tun
from .model import initial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wghsm.config import Gateway

__all__ = ["DEFAULT_ENTRIES", "run"]

_log = logging.getLogger(__name__)

KEPT = (
    # Interface, routes, marks, TUN; ports below 1024.
    Capability.NET_ADMIN,
    Capability.NET_BIND_SERVICE,
    # Children change their uid, drop their bounding set and lock their memory; they are ended by signals.
    Capability.SETUID,
    Capability.SETGID,
    Capability.SETPCAP,
    Capability.IPC_LOCK,
    Capability.KILL,
    # The custodian, still root, opens a PIN file wherever it is and makes its state folder for its own user.
    Capability.DAC_OVERRIDE,
    Capability.CHOWN,
    Capability.FOWNER,
)
"""What the supervisor keeps of root. It stays uid 0 and starts programs as root: it is root in practice."""


def _entry(module: str) -> tuple[str, ...]:
    # Isolated: neither the environment nor the working directory can change what is imported.
    return (sys.executable, "-I", "-m", module)


DEFAULT_ENTRIES: Mapping[Role, Sequence[str]] = {
    Role.CUSTODIAN: _entry("wghsm.custodian"),
    Role.HANDSHAKE: _entry("wghsm.handshake"),
    Role.EGRESS: _entry("wghsm.tunnel.egress"),
    Role.INGRESS: _entry("wghsm.tunnel.ingress"),
    Role.CONTROL: _entry("wghsm.control"),
    Role.AUDITOR: _entry("wghsm.auditor"),
}
"""The program of each role; `--channel FD` is added."""


def run(
    gateway: Gateway,
    *,
    file: str,
    entries: Mapping[Role, Sequence[str]] = DEFAULT_ENTRIES,
    notify: Callable[[ExitCode, str], None] | None = None,
    tty: int | None = None,
    keep_tty: bool = True,
) -> ExitCode:
    """Run the gateway until it is told to end; gives the exit code. Needs root, and the main thread.

    `notify` is told once: OK when it serves, or why it ended before that. `tty` is a terminal for a PIN prompt,
    which stays the caller's; without `keep_tty` it is used no more once the gateway has served. The reason for an
    end that nobody asked for goes to standard error as one line.
    """
    teller = _Teller(notify)
    configure_log(gateway.interface.name, Role.SUPERVISOR, gateway.log_level)
    try:
        with contextlib.ExitStack() as stack:
            code, text = _Start(gateway, file, entries, teller, tty, keep_tty).run(stack)
    except GatewayFault as fault:
        code, text = fault.exit_code, str(fault)
    except Exception as error:
        # No secret ever comes here, so the whole trace may be shown.
        _log.exception("the supervisor failed")
        code, text = ExitCode.FAILURE, f"the supervisor failed: {type(error).__name__}: {error}"
    if text:
        sys.stderr.write(f"wghsm: {text}\n")
        sys.stderr.flush()
    teller.tell(code, text)
    return code


class _Teller:
    """Tells the starter how the start went, once."""

    def __init__(self, notify: Callable[[ExitCode, str], None] | None) -> None:
        self._notify = notify

    def tell(self, code: ExitCode, text: str) -> None:
        notify, self._notify = self._notify, None
        if notify is not None:
            notify(code, text)


class _Start:
    """Makes everything that a gateway needs; what is made goes on the stack of `run`, which takes it down."""

    def __init__(
        self,
        gateway: Gateway,
        file: str,
        entries: Mapping[Role, Sequence[str]],
        teller: _Teller,
        tty: int | None,
        keep_tty: bool,
    ) -> None:
        self._gateway = gateway
        self._file = file
        without = set() if gateway.audit.enabled else {Role.AUDITOR}
        self._entries = {role: entry for role, entry in entries.items() if role not in without}
        self._teller = teller
        self._tty = tty
        self._keep_tty = keep_tty

    def run(self, stack: contextlib.ExitStack) -> tuple[ExitCode, str]:
        """Make everything, run the loop; why it ended."""
        if os.geteuid() != 0:
            raise GatewayFault(ExitCode.NO_PRIVILEGE, "a gateway needs root to make its interface; run as root")
        name = self._gateway.interface.name
        found_users = users(self._gateway)
        tty = self._terminal()
        tell_systemd("STATUS=starting")
        stack.callback(tell_systemd, "STOPPING=1")
        loop = Loop()
        stack.callback(loop.close)
        signals = SignalWatch(loop)
        stack.callback(signals.close)
        stack.callback(GatewayLock(name).release)
        watch = LinkWatch()
        stack.callback(watch.close)
        state = self._state(stack, tty)
        reduce(KEPT)
        settings = self._settings(found_users, state)
        supervisor = Supervisor(loop, state, settings, found_users["resolver"], lambda: self._served(state))
        stack.callback(state.links.delete)
        stack.callback(supervisor.children.abandon)
        stack.callback(lambda: run_down(state.gateway))
        run_up(self._gateway)
        signals.handler = supervisor.take_signal
        supervisor.start(watch)
        stack.callback(SocketNews(loop, state.uapi, supervisor.socket_gone).close)
        Watchdog(loop)
        loop.run()
        return supervisor.outcome

    def _terminal(self) -> int | None:
        """The terminal if the PIN is to be typed."""
        if not wants_prompt(self._gateway.token.uri):
            return None
        if self._tty is None:
            text = "the token's PIN is typed (pin-source=prompt), and there is no terminal; use pin-source=file:PATH"
            raise GatewayFault(ExitCode.BAD_CONFIG, text)
        return self._tty

    def _state(self, stack: contextlib.ExitStack, tty: int | None) -> State:
        interface, workers = self._gateway.interface, self._gateway.tunnel.workers
        try:
            wrapped = read_wrapped_files(self._gateway)
        except ConfigError as error:
            raise GatewayFault(ExitCode.BAD_CONFIG, str(error).partition("\n")[0]) from None
        uapi = UnixListener(uapi_socket_path(interface.name))
        stack.callback(uapi.close)
        admin = UnixListener(runtime_directory(interface.name) / "admin.sock")
        stack.callback(admin.close)
        try:
            udp = UdpPair(interface.listen_port, interface.fwmark, workers)
        except OSError as error:
            text = f"UDP port {interface.listen_port} cannot be opened: {error.strerror}; choose another listen_port"
            raise GatewayFault(ExitCode.SYSTEM, text) from None
        stack.callback(udp.close)
        tun = Tun(interface.name, queues=workers)
        stack.callback(tun.close)
        steering = Steering(tun.fd, workers)
        stack.callback(steering.close)
        inboxes = Inboxes(workers)
        stack.callback(inboxes.close)
        links = Links(interface.name, interface.addresses, interface.table, interface.fwmark)
        stack.callback(links.close)
        stack.callback(links.follow_rules, ())
        links.clear_stale()
        model = initial(self._gateway, wrapped, time.time())
        udp.mark(outer_mark(interface, model))
        steering.change(model.routes())
        endpoints, mark = known_endpoints(model), outer_mark(interface, model)
        mtu = links.path_mtu(endpoints, mark) if interface.mtu == "auto" else interface.mtu
        links.configure(mtu)
        links.add_routes(model.owners)
        links.add_rules(ways(interface, model))
        packet_filter = PacketFilter(self._gateway, model, udp.port)
        stack.callback(packet_filter.remove)
        stats_fd = create_stats()
        stack.callback(os.close, stats_fd)
        state = State(
            gateway=self._gateway,
            file=self._file,
            model=model,
            tun=tun,
            links=links,
            packet_filter=packet_filter,
            link=links.status() or LinkStatus(up=True, mtu=mtu),
            udp=udp,
            uapi=uapi,
            admin=admin,
            stats_fd=stats_fd,
            stats=StatsFile(stats_fd, Role.SUPERVISOR),
            steering=steering,
            inboxes=inboxes,
            wrapped=wrapped,
            tty=tty,
            path_mtu=mtu if interface.mtu == "auto" else 0,
        )
        stack.callback(lambda: state.udp.close())
        return state

    def _settings(self, found_users: Mapping[str, tuple[int, int]], state: State) -> Settings:
        def limit(role: Role) -> int | None:
            uri = (state.trial or state.gateway).token.uri
            return deadline(role, prompt=state.tty is not None or wants_pinpad(uri))

        return Settings(
            gateway=self._gateway.interface.name,
            entries=self._entries,
            users={role: found_users[role] for role in self._entries},
            environment=lambda role: environment(state.trial or state.gateway, role),
            deadline=limit,
            pairs=pairs(runtime_psks=state.runtime_psks, audited=self._gateway.audit.enabled),
            log_level=self._gateway.log_level,
            workers=self._gateway.tunnel.workers,
        )

    def _served(self, state: State) -> None:
        tell_systemd("READY=1", f"STATUS=serving on port {state.udp.port}")
        state.served = True
        if not self._keep_tty:
            state.tty = None
        self._teller.tell(ExitCode.OK, "")
        settle_anew()
