"""knockd's file (the reader is being written)."""

from port_knocking_doors.model import Protocol, Step


def one_time_steps(text: str, flags: tuple[int, int]) -> tuple[Step, ...] | None:
    """The steps that a line of a file of one-time sequences names; None for a comment and what is malformed."""
    mask, value = flags
    steps = []
    for item in text.strip().split(","):
        port, _, protocol = item.strip().partition(":")
        if not port.isdigit():
            return None
        steps.append(Step(Protocol.UDP, int(port)) if protocol == "udp" else Step(Protocol.TCP, int(port), value, mask))
    return tuple(steps)
