"""The knocks that the running daemon receives, one line each."""

from collections.abc import Iterator
from typing import Any

from port_knocking_doors.control import client
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.system.clock import now
from port_knocking_doors.system.printable import escaped

_NOTHING = (
    "No knock arrived. If one was sent: was it sent to an address of this host, from another host? Does a firewall on "
    "the way (a provider's, a router's) block it? A datagram with another payload would be shown; one to a wrong port "
    "is not seen."
)


def listened(mark: int, seconds: float) -> Iterator[str]:
    """A line for each knock that the daemon receives within `seconds`. Raises `DoorsError`."""
    yield f"Listening for {seconds:g} s: knock now. Each knock is shown with its result, never with its port."
    received = 0
    end = now() + seconds
    for event in client.watch(mark, seconds):
        received += "address" in event
        missed = f" ({event['missed']} more are not shown)" if "missed" in event else ""
        yield f"{_clean(event.get('time'))} {_clean(event.get('message'))}{_sequence(event)}{missed}"
    if now() < end - 1:
        raise DoorsError("the daemon stopped")
    if not received:
        yield _NOTHING


def _sequence(event: dict[str, Any]) -> str:
    return f" ({_clean(event['sequence'])})" if event.get("event") == "knock" and "sequence" in event else ""


def _clean(value: object) -> str:
    return escaped(str(value))
