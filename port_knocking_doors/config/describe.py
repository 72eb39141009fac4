"""A sequence in words for an administrator. The words show the steps."""

from collections.abc import Iterator

from port_knocking_doors.model import ALL_FLAGS, CommandOpening, Dialect, Flags, Protocol, Sequence, Step


def in_words(sequence: Sequence) -> str:
    """A sniffed sequence in words: its steps, and what they open or run. Shows the steps."""
    lines = [_step_in_words(step) for step in sequence.steps]
    lines = [f"{position}. {line}" for position, line in enumerate(lines, start=1)]
    if sequence.one_time:
        lines.append(f"one-time sequences, in order: {sequence.one_time}")
        mask, value = sequence.flags
        lines.append(f"each of their TCP steps {flags_in_words(value, mask)}")
    lines += _scope_in_words(sequence)
    access = sequence.access
    if access.ports:
        lines.append(f"opens {', '.join(map(str, access.ports))} for {access.duration:.10g} s")
    if access.command:
        lines += _command_in_words(access.command)
    elif not access.ports:
        lines.append("neither opens nor runs anything")
    if sequence.close_steps:
        lines.append(f"closed ahead of time by: {', '.join(map(_step_in_words, sequence.close_steps))}")
    lines.append(f"{sequence.traps or 'no'} traps")
    kind = "" if sequence.dialect is Dialect.NATIVE else f" (rules of {sequence.dialect.value})"
    head = f"Sequence {sequence.name}{kind}, within {sequence.timeout:.10g} s:"
    return "\n  ".join([head, *lines])


def _scope_in_words(sequence: Sequence) -> Iterator[str]:
    scope = sequence.scope
    if scope.target is not None:
        yield f"only packets to {scope.target}"
    if scope.interfaces:
        yield f"only packets that arrive on {', '.join(scope.interfaces)}"
    if scope.ipv4_only:
        yield "only IPv4"


def _command_in_words(command: CommandOpening) -> Iterator[str]:
    """The commands for an IPv4 address, then those for an IPv6 address if they differ."""
    apart = (command.start6, command.stop6) != (None, None)
    ways = [("for IPv4 ", command.start, command.stop)] if apart else [("", command.start, command.stop)]
    if apart:
        start6 = command.start if command.start6 is None else command.start6
        stop6 = command.stop if command.stop6 is None else command.stop6
        ways.append(("for IPv6 ", start6, stop6))
    for which, start, stop in ways:
        yield f"{which}runs: {start}" if start else f"{which}runs nothing"
        if stop:
            yield f"{command.delay:.10g} s later: {stop}"


def _step_in_words(step: Step) -> str:
    port = f"{step.protocol.name} {step.port}"
    return port if step.protocol is Protocol.UDP else f"{port} {flags_in_words(step.flags, step.mask)}"


def flags_in_words(flags: int, mask: int) -> str:
    """The flags that must be set or clear. If every flag counts, those that must be clear are left out."""
    if not mask:
        return "with any flags"
    there, absent = (
        " ".join(flag.name or "" for flag in Flags if among & flag) for among in (flags & mask, mask & ~flags)
    )
    if mask == ALL_FLAGS:
        return f"with {there or 'no flags'}"
    return ", ".join([*([f"with {there}"] if there else []), *([f"without {absent}"] if absent else [])])
