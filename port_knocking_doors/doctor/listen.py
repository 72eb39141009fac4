"""The knocks that the running daemon receives, one line each."""

from collections.abc import Iterator
from typing import Any

from port_knocking_doors.control import client
from port_knocking_doors.errors import DoorsError
from port_knocking_doors.system.clock import now

_NOTHING = (
    "Nothing was heard. If somebody knocked meanwhile: is it this host's address that they knock at, from another "
    "host? Does a firewall on the way (a provider's, a router's) let the knocks through? A datagram of the opening "
    'sequence must carry exactly "knock\\n"; a wrong port of it is not seen at all.'
)


def listened(mark: int, seconds: float) -> Iterator[str]:
    """Each knock as the daemon hears it, one line each. Raises `DoorsError`."""
    yield f"Listening for {seconds:g} s: knock now. Each knock shows here, and what it was judged; never its port."
    heard = 0
    end = now() + seconds
    for event in client.watch(mark, seconds):
        heard += "address" in event
        missed = f" ({event['missed']} more were too fast to be shown)" if "missed" in event else ""
        yield f"{_clean(event.get('time'))} {_clean(event.get('message'))}{_which(event)}{missed}"
    if now() < end - 1:
        raise DoorsError("the daemon stopped while it was listened to")
    if not heard:
        yield _NOTHING


def _which(event: dict[str, Any]) -> str:
    return f" ({_clean(event['sequence'])})" if event.get("event") == "knock" and "sequence" in event else ""


def _clean(value: object) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))
