"""Throw-away hosts with a real firewalld: a server, its clients, a private bus; no root, nothing on the host touched.

    with Sandbox(clients=("client", "stranger")) as box:
        client = box.hosts["client"]
        box.server.listen(2222)
        assert client.connect(client.server4, 2222) == "prohibited"

`box` starts and ends it all, `host` is what one can do on each host, `launch` gets into namespaces of its own. What
runs in there is `inside` (the first process) and `agent` (one a host), which speak over a `channel`.
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
