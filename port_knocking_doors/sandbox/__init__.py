"""Throw-away hosts with a real firewalld for the demo and the tests; nothing here is part of the daemon.

    with Sandbox(clients=("client", "stranger")) as box:
        client = box.hosts["client"]
        box.server.listen(2222)
        assert client.connect(client.server4, 2222) == "prohibited"

A sandbox is a server, its clients and a private bus; it needs no root and changes nothing on this machine. `box` starts
and ends it, `host` acts on one host, `launch` makes the namespaces. Inside run `inside` (the first process) and `agent`
(one for each host), which are asked over a `channel`. `demo` is the story of a door, and `narrator` shows it.
"""

from port_knocking_doors.sandbox.box import BusService, FirewalldService, Polkit, Sandbox
from port_knocking_doors.sandbox.host import (
    ClientHost,
    ConnectionAttempt,
    ConnectionOutcome,
    ConnectionWatch,
    Host,
    Listener,
    OutgoingDatagram,
)
from port_knocking_doors.sandbox.process import Output, Process

__all__ = [
    "BusService",
    "ClientHost",
    "ConnectionAttempt",
    "ConnectionOutcome",
    "ConnectionWatch",
    "FirewalldService",
    "Host",
    "Listener",
    "OutgoingDatagram",
    "Output",
    "Polkit",
    "Process",
    "Sandbox",
]
