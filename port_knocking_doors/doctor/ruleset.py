"""The kernel's tables as text: of `nft list ruleset`, the part that a copy of them needs and can load.

The copy judges the first packet of a few addresses, so that it differs from the original where that changes no verdict:
no program owns its tables, limits are not used up, and a set keeps only the entries that hold one of the addresses. A
hundred thousand of them would need seconds to load.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from port_knocking_doors.model import Address

COPIED_FAMILIES = ("inet", "ip", "ip6", "netdev")
"""Those that see IP packets from a link; ARP and bridges have tables of their own."""

_TABLE = re.compile(r"^table (?P<family>\w+) (?P<name>\S+) \{")
_COMPAT = re.compile(r"\bxt (?:match|target|watcher) ")
_TABLE_FLAGS = re.compile(r"^\tflags (?P<flags>[\w, ]+)$")
_OFFLOAD = re.compile(r"^\t\tflags offload;?$")
_LIMIT = re.compile(r"\blimit rate (?P<over>over )?\d+(?: ?\w+)?/\w+(?: burst \d+ \w+)? ?")
_KEYED_BY_ADDRESS = re.compile(r"^\t\ttype(?:of)? (?:ipv4_addr|ipv6_addr|ip6? [sd]addr)(?: :.*)?$")
_ELEMENTS = "\t\telements = { "
_ENTRIES = re.compile(r'(?:[^,"]|"[^"]*")+')
_QUEUE = re.compile(r"^\t\t.*\bqueue\b.*\bto\b|^\t\t.*\bqueue (?:flags|num)\b", re.MULTILINE)


class Table(NamedTuple):
    """One table, as `nft list ruleset` shows it."""

    family: str
    name: str
    text: str

    @property
    def is_compat(self) -> bool:
        """Whether it has expressions of iptables-nft, which nft shows and cannot load."""
        return _COMPAT.search(self.text) is not None

    @property
    def queues(self) -> bool:
        """Whether it may leave the verdict to a program (NFQUEUE), which a copy does not have."""
        return _QUEUE.search(self.text) is not None

    def __str__(self) -> str:
        return f"{self.family} {self.name}"


def tables(ruleset: str) -> list[Table]:
    """The tables of the output of `nft list ruleset`, without those that no IP packet from a link passes."""
    found: list[Table] = []
    lines: list[str] = []
    head: re.Match[str] | None = None
    for line in ruleset.splitlines(keepends=True):
        if head is None:
            head, lines = _TABLE.match(line), []
        lines.append(line)
        if head is not None and line.startswith("}"):
            if head["family"] in COPIED_FAMILIES:
                found.append(Table(head["family"], head["name"], "".join(lines)))
            head = None
    return found


def copy_of(table: Table, addresses: Iterable[Address]) -> str:
    """The table's text for a copy that judges packets from and to these addresses."""
    wanted = sorted({(address.version, int(address)) for address in addresses})
    return "\n".join(_copied(iter(table.text.splitlines()), wanted)) + "\n"


def _copied(lines: Iterator[str], wanted: Sequence[tuple[int, int]]) -> Iterator[str]:
    keyed_by_address = False
    for line in lines:
        if flags := _TABLE_FLAGS.match(line):
            # A table with an owner disappears with the program that loads it.
            kept = [flag for flag in re.split(r"[, ]+", flags["flags"]) if flag not in ("owner", "persist")]
            if kept:
                yield f"\tflags {','.join(kept)}"
            continue
        if _OFFLOAD.match(line):
            continue
        if line.startswith(_ELEMENTS):
            entries = [line.removeprefix(_ELEMENTS)]
            while not entries[-1].endswith("}"):
                entries.append(next(lines).strip())
            text = " ".join(entries).removesuffix("}").rstrip()
            kept = _holding(text, wanted) if keyed_by_address else [text]
            if kept:
                yield f"{_ELEMENTS}{', '.join(kept)} }}"
            continue
        keyed_by_address = line.startswith("\t\t") and (keyed_by_address or _KEYED_BY_ADDRESS.match(line) is not None)
        limit = _LIMIT.search(line) if line.startswith("\t\t") else None
        if limit is None:
            yield line
        elif limit["over"] is None:
            yield line.replace(limit[0], "")
        # A first packet is over no limit: its rule does nothing.


def _holding(text: str, wanted: Sequence[tuple[int, int]]) -> list[str]:
    """The entries that hold a wanted address, or may do."""
    return [entry for entry in map(str.strip, _ENTRIES.findall(text)) if entry and _may_hold(entry, wanted)]


def _may_hold(entry: str, wanted: Sequence[tuple[int, int]]) -> bool:
    key = entry.split(" ", 1)[0]
    version, kind, bits = (6, IPv6Address, 128) if ":" in key else (4, IPv4Address, 32)
    first, slash, length = key.partition("/")
    first, dash, last = (first, "", "") if slash else key.partition("-")
    try:
        low = int(kind(first))
        high = int(kind(last)) if dash else low
        if slash:
            high = low | ((1 << bits - int(length)) - 1)
    except ValueError:  # a wildcard, or something newer
        return True
    return any(low <= address <= high for of_version, address in wanted if of_version == version)
