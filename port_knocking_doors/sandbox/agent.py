"""The agent of one host: starts processes, sends, connects and listens there, as its owner requests.

Each request has a thread of its own, so that a connection that hangs delays no other request.
"""

import asyncio
import errno
import os
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall.query_client import QueryClient
from port_knocking_doors.sandbox.channel import AgentMessage, Channel

_OUTCOMES = {
    0: "open",
    errno.ECONNREFUSED: "refused",
    # "Administratively prohibited" reaches a program as the first of these for IPv4 and as the second for IPv6.
    errno.EHOSTUNREACH: "prohibited",
    errno.EACCES: "prohibited",
    errno.ENETUNREACH: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
}
_REPORT_ICMP = {
    socket.AF_INET: (socket.IPPROTO_IP, 11),  # IP_RECVERR, <linux/in.h>
    socket.AF_INET6: (socket.IPPROTO_IPV6, 25),  # IPV6_RECVERR, <linux/in6.h>
}
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: no port stays in TIME_WAIT after many connections


class Agent:
    """Serves the requests of one host."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._servers: dict[int, _EchoServer] = {}
        self._watches: dict[int, _WatchThread] = {}
        self._loop = asyncio.new_event_loop()
        self._queries = QueryClient()
        self._operations: dict[str, Callable[..., Any]] = {
            "signal": self._signal,
            "send": _send,
            "connect": _connect,
            "listen": self._listen,
            "close": self._close,
            "watch": self._watch,
            "watched": self._watched,
            "ask": self._ask,
        }

    def serve(self) -> None:
        """Serve until the owner closes the channel."""
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        while (received := self._channel.receive()) is not None:
            threading.Thread(target=self._serve_one, args=received, daemon=True).start()

    def _serve_one(self, message: AgentMessage, descriptors: list[int]) -> None:
        number = message.pop("id")
        operation = message.pop("operation")
        with suppress(ConnectionError):
            try:
                if operation == "spawn":
                    self._spawn(number, descriptors, **message)
                else:
                    self._channel.send({"id": number, "value": self._operations[operation](**message)})
            except Exception as error:  # any error is the owner's to handle
                self._channel.send({"id": number, "error": str(error), "kind": _kind(error)})

    def _spawn(
        self, number: int, descriptors: list[int], argv: list[str], env: dict[str, str], cwd: str | None
    ) -> None:
        """Start a process on three descriptors; send its number and a pidfd, and later its exit status."""
        try:
            stdin, stdout, stderr = descriptors
            process = subprocess.Popen(
                argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd, start_new_session=True
            )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._processes[process.pid] = process
        handle = os.pidfd_open(process.pid)
        self._channel.send({"id": number, "value": process.pid}, [handle])
        os.close(handle)
        status = process.wait()
        del self._processes[process.pid]
        self._channel.send({"id": number, "exit": status})

    def _signal(self, pid: int, number: int) -> None:
        process = self._processes.get(pid)
        if process is not None:
            process.send_signal(number)

    def _listen(self, port: int, protocol: str) -> int:
        server = _EchoServer(port, protocol)
        self._servers[id(server)] = server
        return id(server)

    def _close(self, server: int) -> None:
        self._servers.pop(server).close()

    def _watch(self, **arguments: Any) -> int:
        watch = _WatchThread(**arguments)
        self._watches[id(watch)] = watch
        return id(watch)

    def _ask(self, interface: str, member: str, arguments: list[str | int], timeout: float) -> Any:
        question = asyncio.wait_for(self._queries.ask(interface, member, *arguments), timeout)
        return asyncio.run_coroutine_threadsafe(question, self._loop).result()

    def _watched(self, watch: int) -> list[tuple[float, str]]:
        return self._watches.pop(watch).stop()


def _kind(error: Exception) -> str:
    return error.code if isinstance(error, FirewallError) else type(error).__name__


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _send(datagrams: list[tuple[str, int, str, int]], pause: float, repeat: int) -> None:
    """Send datagrams in order; equal source ports (0: any) share a socket."""
    sockets: dict[tuple[socket.AddressFamily, int], socket.socket] = {}
    with ExitStack() as stack:
        for address, _port, _payload, source_port in datagrams:
            key = (_family(address), source_port)
            if key not in sockets:
                sockets[key] = stack.enter_context(socket.socket(key[0], socket.SOCK_DGRAM))
                sockets[key].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sockets[key].bind(("", source_port))
        ready = [
            (sockets[_family(address), source_port].sendto, bytes.fromhex(payload), (address, port))
            for address, port, payload, source_port in datagrams
        ]
        for _ in range(repeat):
            for sendto, payload, destination in ready:
                sendto(payload, destination)
                if pause:
                    time.sleep(pause)


def _connect(address: str, port: int, timeout: float, protocol: str, source_port: int = 0) -> str:
    """Try one connection and return its outcome."""
    family = _family(address)
    with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as attempt:
        attempt.setblocking(False)
        attempt.setsockopt(*_REPORT_ICMP[family], 1)
        if source_port:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(("", source_port))
        if protocol == "tcp":
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        error = attempt.connect_ex((address, port))
        if error not in (0, errno.EINPROGRESS):
            return _outcome(error)
        if protocol == "udp":
            attempt.send(b"echo request")
        return _await_outcome(attempt, select.POLLOUT if protocol == "tcp" else select.POLLIN, timeout)


def _outcome(error: int) -> str:
    return _OUTCOMES.get(error, errno.errorcode.get(error, str(error)))


def _await_outcome(attempt: socket.socket, success: int, timeout: float) -> str:
    poll = select.poll()
    poll.register(attempt, success | select.POLLERR)
    if not poll.poll(timeout * 1000):
        return "timeout"
    return _outcome(attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or _icmp_error(attempt))


def _icmp_error(attempt: socket.socket) -> int:
    """The error of an ICMP answer, or 0.

    On a virtual link the answer arrives while the kernel still handles the attempt; a TCP connection over IPv6 then
    fails only at the next try, a second later. The error queue has the answer at once.
    """
    try:
        _, ancillary, _, _ = attempt.recvmsg(512, 512, socket.MSG_ERRQUEUE)
    except BlockingIOError:
        return 0
    for _level, _kind, data in ancillary:
        (error,) = struct.unpack_from("=I", data)  # struct sock_extended_err
        return int(error)
    return 0


class _EchoServer:
    """Listens on one port, for IPv4 and IPv6, and echoes everything."""

    def __init__(self, port: int, protocol: str) -> None:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        self._socket = socket.socket(socket.AF_INET6, kind)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(protocol == "tcp"))
        try:
            self._socket.bind(("::", port))
            if protocol == "tcp":
                self._socket.listen(1024)
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self._end, self._end_request = os.pipe()
        serve_one = self._accept if protocol == "tcp" else self._echo_datagram
        self._thread = threading.Thread(target=self._serve, args=(serve_one,), daemon=True)
        self._thread.start()

    def _serve(self, serve_one: Callable[[], None]) -> None:
        while True:
            ready, _, _ = select.select([self._socket.fileno(), self._end], [], [])
            if self._end in ready:
                return
            with suppress(OSError):  # the client has gone already
                serve_one()

    def _accept(self) -> None:
        connection, _ = self._socket.accept()
        threading.Thread(target=_echo_stream, args=(connection,), daemon=True).start()

    def _echo_datagram(self) -> None:
        payload, source = self._socket.recvfrom(65535)
        self._socket.sendto(payload, source)

    def close(self) -> None:
        os.close(self._end_request)
        self._thread.join()
        os.close(self._end)
        self._socket.close()


def _echo_stream(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        connection.settimeout(None)
        while data := connection.recv(65536):
            connection.sendall(data)


class _WatchThread:
    """Tries a connection again and again, in a thread, and records the time and outcome of each try."""

    def __init__(self, interval: float, duration: float, **arguments: Any) -> None:
        self._interval = interval
        self._until = time.monotonic() + duration
        self._arguments = arguments
        self._tries: list[tuple[float, str]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.is_set() and time.monotonic() < self._until:
            outcome = _connect(**self._arguments)
            self._tries.append((time.monotonic(), outcome))
            self._stopped.wait(self._interval)

    def stop(self) -> list[tuple[float, str]]:
        self._stopped.set()
        self._thread.join()
        return self._tries
