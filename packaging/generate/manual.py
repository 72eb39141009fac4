"""The manual pages port-knocking-doors(1) and port_knocker.toml(5)."""

from collections.abc import Iterator

import roff
from commands import Command, Option

from port_knocking_doors import __version__
from port_knocking_doors.config import render

_SOURCE = f"port-knocking-doors {__version__}"
_BRIEF = "port knocking for servers with firewalld"
_CONFIGURATION_BRIEF = "configuration of port-knocking-doors"

_FILES = {
    "~/.port_knocker.toml": "The configuration, if it is there.",
    "/etc/port_knocker.toml": "Else this one: see port_knocker.toml(5).",
    "/run/port-knocking-doors": "What has to be done should the daemon be killed.",
}
_ENVIRONMENT = {
    "KNOCKER_SEQ": "The opening sequence, as with `--magic-seq`, which beats it; it beats the file.",
    "KNOCKER_PORTS": "The guarded ports, as with `--ports`, which beats it; it beats the file.",
    "NOTIFY_SOCKET": "Where the daemon tells systemd that it is ready; see sd_notify(3).",
    "JOURNAL_STREAM": "If set, log lines have a priority in place of the time; see systemd.exec(5).",
}
_EXIT_STATUS = {"0": "Done.", "1": "Any failure that is none of the others.", "2": "Wrong usage or configuration."}
_SIGNALS = {
    "SIGTERM, SIGINT": "The daemon closes its doors and ends.",
    "SIGHUP": "The daemon reads its configuration again; a wrong one is reported and changes nothing.",
}


def program_page(program: Command, date: str) -> str:
    """port-knocking-doors(1)."""
    return roff.page(
        program.name,
        1,
        date,
        _SOURCE,
        _BRIEF,
        {
            "SYNOPSIS": [_synopsis(program.name, program), *(_synopsis(program.name, one) for one in program.commands)],
            "DESCRIPTION": list(roff.paragraphs(program.about)),
            "OPTIONS": [_option(option) for option in program.options],
            "COMMANDS": [line for command in program.commands for line in _command(command)],
            "FILES": _list(_FILES),
            "ENVIRONMENT": _list(_ENVIRONMENT),
            "SIGNALS": _list(_SIGNALS),
            "EXIT STATUS": _list(_EXIT_STATUS),
            "SEE ALSO": [roff.plain("port_knocker.toml(5), firewalld(1), firewalld.richlanguage(5), nft(8)")],
        },
    )


def configuration_page(date: str) -> str:
    """port_knocker.toml(5)."""
    head = render.help_text().partition(f"\n{next(render.explained()).line}\n")[0]
    _, _, about = head.partition("\n\n")
    return roff.page(
        "port_knocker.toml",
        5,
        date,
        _SOURCE,
        _CONFIGURATION_BRIEF,
        {
            "DESCRIPTION": [_kept(paragraph) for paragraph in about.strip("\n").split("\n\n")],
            "KEYS": [_key(one) for one in render.explained()],
            "FILES": _list({name: about for name, about in _FILES.items() if name.endswith(".toml")}),
            "SEE ALSO": [roff.plain("port-knocking-doors(1), firewalld.zones(5)")],
        },
    )


def _key(key: render.Explained) -> str:
    if key.line.startswith("[["):  # a table: its keys follow
        return f".SS {roff.plain(key.line)}\n.PP\n{roff.prose(key.need)}\n.PP\n{roff.prose(key.about)}"
    return roff.entry(roff.bold(key.line), key.need, key.about)


def _kept(paragraph: str) -> str:
    """A paragraph of the help, whose indented lines are a table or a list and stay as they are."""
    lines = paragraph.split("\n")
    before = [line for line in lines if not line.startswith("    ")]
    kept = [line for line in lines if line.startswith("    ")]
    if not kept:
        return f".PP\n{roff.prose(paragraph)}"
    first = lines.index(kept[0])
    pieces = [f".PP\n{roff.prose(' '.join(before[:first]))}", roff.as_is("\n".join(kept))]
    if before[first:]:
        pieces.append(f".PP\n{roff.prose(' '.join(before[first:]))}")
    return "\n".join(pieces)


def _synopsis(program: str, command: Command) -> str:
    words = [roff.bold(program)] if command.name == program else [roff.bold(program), roff.bold(command.name)]
    words += ["[" + roff.italic("OPTION") + "]..."]
    words += [roff.plain(argument.value) for argument in command.arguments]
    return ".PP\n" + " ".join(words)


def _command(command: Command) -> Iterator[str]:
    yield f".SS {roff.plain(command.name)}"
    yield from roff.paragraphs(command.about)
    for argument in command.arguments:
        if argument.about:
            yield roff.entry(roff.italic(argument.value.strip("[].")), argument.about)
    yield from (_option(option) for option in command.options)


def _option(option: Option) -> str:
    value = f" {roff.italic(option.value)}" if option.value else ""
    return roff.entry(", ".join(map(roff.bold, option.names)) + value, option.about)


def _list(entries: dict[str, str]) -> list[str]:
    return [roff.entry(roff.bold(name), about) for name, about in entries.items()]
