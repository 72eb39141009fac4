"""A sequence in words, for people: it shows the steps."""

from collections.abc import Iterator

from port_knocking_doors.model import ALL_FLAGS, CommandOpening, Dialect, Flags, Protocol, Sequence, Step


def in_words(sequence: Sequence) -> str:
    """A sniffed sequence for people: what has to be knocked, and what happens then. It shows the steps."""
    lines = [_step_in_words(step) for step in sequence.steps]
    lines = [f"{position}. {line}" for position, line in enumerate(lines, start=1)]
    if sequence.one_time:
        lines.append(f"one-time sequences, one after the other: {sequence.one_time}")
        mask, value = sequence.flags
        lines.append(f"each TCP step of theirs {flags_in_words(value, mask)}")
    lines += _reach_in_words(sequence)
    access = sequence.access
    if access.ports:
        lines.append(f"opens {', '.join(map(str, access.ports))} for {access.duration:g} s")
    if access.command:
        lines += _command_in_words(access.command)
    elif not access.ports:
        lines.append("neither opens nor runs anything")
    lines.append(f"{sequence.traps or 'no'} traps")
    kind = "" if sequence.dialect is Dialect.NATIVE else f", as {sequence.dialect.value} hears it"
    head = f"Sequence {sequence.name}{kind}, within {sequence.timeout:g} s:"
    return "\n  ".join([head, *lines])


def _reach_in_words(sequence: Sequence) -> Iterator[str]:
    scope = sequence.scope
    if scope.target is not None:
        yield f"hears packets to {scope.target} alone"
    if scope.interfaces:
        yield f"hears packets by {', '.join(scope.interfaces)} alone"
    if scope.ipv4_only:
        yield "hears IPv4 alone"


def _command_in_words(command: CommandOpening) -> Iterator[str]:
    """What runs for an IPv4 address, and then for an IPv6 address where that is something else."""
    apart = (command.start6, command.stop6) != (None, None)
    ways = [("for IPv4 ", command.start, command.stop)] if apart else [("", command.start, command.stop)]
    if apart:
        start6 = command.start if command.start6 is None else command.start6
        stop6 = command.stop if command.stop6 is None else command.stop6
        ways.append(("for IPv6 ", start6, stop6))
    for which, start, stop in ways:
        yield f"{which}runs: {start}" if start else f"{which}runs nothing"
        if stop:
            yield f"{command.delay:g} s later: {stop}"


def _step_in_words(step: Step) -> str:
    port = f"{step.protocol.name} {step.port}"
    return port if step.protocol is Protocol.UDP else f"{port} {flags_in_words(step.flags, step.mask)}"


def flags_in_words(flags: int, mask: int) -> str:
    """Flags that are free go without saying; where none is, those that may not be set do."""
    if not mask:
        return "with any flags"
    there, absent = (
        " ".join(flag.name or "" for flag in Flags if among & flag) for among in (flags & mask, mask & ~flags)
    )
    if mask == ALL_FLAGS:
        return f"with {there or 'no flags'}"
    return ", ".join([*([f"with {there}"] if there else []), *([f"without {absent}"] if absent else [])])
