"""What brings the world to a door: an opener for each kind of opening, and what it reports back.

An opener is given doors to open and to close. That it was asked for something is no news: it reports what it saw, a
door open or closed, to its listener.
"""

from typing import Protocol

from port_knocking_doors.model import Access, Door


class DoorListener(Protocol):
    """What an opener reports to."""

    def on_open(self, door: Door, zones: tuple[str, ...]) -> None:
        """The door is open, or open again; `zones`: where its rules are, empty where it has none."""

    def on_closed(self, door: Door) -> None:
        """The door is closed."""

    def on_failed(self, door: Door) -> None:
        """The door cannot be opened, and the log has the reason: the next request may try again."""


class Opener(Protocol):
    """Opens and closes doors of one kind."""

    listener: DoorListener

    uses_interface: bool
    """Whether the interface that the knock arrived on makes another door."""

    counts_from_open: bool
    """Whether a door's time runs from the moment that it is open, and not from the knock."""

    @property
    def is_available(self) -> bool:
        """Whether a door that is asked for now can be opened now."""

    def start(self) -> None:
        """Finish what an earlier process left undone. Called once, with the instance lock held, before any `open`.

        Raises `DoorsError`.
        """

    def stays_open(self, door: Door) -> bool:
        """Whether there is anything to close afterwards; if not, each request opens again."""

    def seconds(self, door: Door, access: Access) -> float:
        """For how long such a door stays open."""

    def open(self, door: Door) -> None:
        """Open the door, or try to until it is closed."""

    def prolong(self, door: Door) -> None:
        """Note that an open door was asked for again: it stays as it is, but may be the one that is needed next."""

    def close(self, door: Door) -> None:
        """Close the door, or try to until it is closed."""

    async def settled(self) -> None:
        """Return once everything that was asked for is confirmed."""

    async def close_all(self) -> None:
        """Close every door. Raises `DoorsError` if some are not confirmed closed in time."""
