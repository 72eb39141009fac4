"""The interface of openers, one for each kind of opening, and the interface that they report to.

An opener is asked to open and close doors. A request alone is not reported: the opener reports to its listener when a
door is confirmed open or closed.
"""

from typing import Protocol

from port_knocking_doors.model import Access, Door


class DoorListener(Protocol):
    """Receives the reports of an opener."""

    def on_open(self, door: Door, zones: tuple[str, ...]) -> None:
        """The door is open, or open again; `zones`: the zones of its rules, empty if it has none."""

    def on_closed(self, door: Door) -> None:
        """The door is closed."""

    def on_denied(self, door: Door, reason: str) -> None:
        """The door must not be open for its address any more."""

    def on_failed(self, door: Door) -> None:
        """The door cannot be opened, and the log has the reason: the next request may try again."""


class Opener(Protocol):
    """Opens and closes doors of one kind."""

    listener: DoorListener

    uses_interface: bool
    """Whether knocks on two interfaces open two doors."""

    counts_from_open: bool
    """Whether a door's time runs from its opening, and not from the knock."""

    @property
    def is_available(self) -> bool:
        """Whether a requested door can be opened now."""

    def start(self) -> None:
        """Finish the work of an earlier process. Called once, with the instance lock held, before any `open`.

        Raises `DoorsError`.
        """

    def stays_open(self, door: Door) -> bool:
        """Whether the door needs to be closed afterwards; if not, each request opens it again."""

    def seconds(self, door: Door, access: Access) -> float:
        """Seconds that such a door stays open."""

    def denial(self, door: Door) -> str:
        """Why the door must not be opened for its address, as far as is known; empty where it may."""

    def open(self, door: Door) -> None:
        """Open the door, or try to until it is closed."""

    def prolong(self, door: Door) -> None:
        """Note that an open door was requested again. It stays as it is; it may be the next one that is used."""

    def close(self, door: Door) -> None:
        """Close the door, or try to until it is closed."""

    async def settled(self) -> None:
        """Return once every request is confirmed."""

    async def close_all(self) -> None:
        """Close every door. Raises `DoorsError` if some are not confirmed closed in time."""
