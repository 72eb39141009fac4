"""Single questions to firewalld from outside of the daemon: the sandbox asks with it what the daemon never does."""

import asyncio
from typing import Any

from port_knocking_doors.firewall.bus import FirewalldBus


class QueryClient:
    """Asks over a connection that is made at the first question and kept for as long as the bus keeps it."""

    def __init__(self) -> None:
        self._bus: FirewalldBus | None = None
        self._connecting = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    async def ask(self, interface: str, member: str, *arguments: str | int) -> Any:
        """One question; `interface` and `member` as in firewalld.dbus(5).

        Raises `FirewallError`, and `OSError`, `EOFError` or `asyncio.TimeoutError` where the bus cannot be reached.
        """
        async with self._connecting:
            bus = self._bus
            if bus is None:
                bus = FirewalldBus(lambda _present: None, lambda *_signal: None)
                await bus.connect()
                self._bus = bus
                self._watch = asyncio.create_task(self._drop_when_ended(bus))
        signature = "".join("s" if isinstance(argument, str) else "i" for argument in arguments)
        return await bus.call(interface, member, signature, *arguments)

    async def _drop_when_ended(self, bus: FirewalldBus) -> None:
        await bus.ended()
        self._bus = None
        bus.close()
