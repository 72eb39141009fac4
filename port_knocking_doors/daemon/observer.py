"""What a program that takes over from knockd tells beside the log: a method for each of its lines, none of which does
anything here."""

from port_knocking_doors.model import Address


class Observer:
    """Told of everything that knockd writes into its log. `door`: a sequence's name."""

    def on_ready(self, interface: str) -> None:
        """It listens; `interface` is empty for every one."""

    def on_stage(self, address: Address, door: str, stage: int) -> None:
        """A knock was the sequence's next step, its `stage`th."""

    def on_complete(self, address: Address, door: str) -> None:
        """It was the last one."""

    def on_command(self, door: str, command: str) -> None:
        """A command begins to run."""

    def on_status(self, door: str, status: int) -> None:
        """A command has ended, and not with 0."""

    def on_stop(self, address: Address, door: str) -> None:
        """The time has come for the door's stop command."""

    def on_timeout(self, address: Address, door: str, stage: int) -> None:
        """Somebody got no further than `stage` before the sequence's time was up."""

    def on_disabled(self, door: str) -> None:
        """No one-time sequence is left for it."""

    def on_unmarked(self, door: str) -> None:
        """Its one-time sequence cannot be marked as used."""

    def on_reload(self) -> None:
        """The configuration was read again, be it in vain."""

    def on_end(self) -> None:
        """The daemon ends."""
