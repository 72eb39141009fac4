"""The tables that the kernel of this host has: of nftables, and of both kinds of iptables."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from port_knocking_doors.doctor.programs import NotProvenError, TimeLimit, needed, program, run
from port_knocking_doors.doctor.ruleset import Table, tables

PROC = Path("/proc")
IPSET = "ipset"
"""The program of the sets that rules of iptables use."""

_FAMILIES = {"ip": "iptables", "ip6": "ip6tables"}
_MANAGED = re.compile(r"^# Warning: table (\S+) (\S+) is managed by iptables-nft", re.MULTILINE)
_AS_ROOT = "permission denied to read the kernel's tables: run as root: sudo port-knocking-doors doctor"


class KernelTables(NamedTuple):
    """Everything that decides over IP packets, as far as it was found."""

    tables: tuple[Table, ...]
    """Those that nft can load."""
    restores: tuple[tuple[str, str], ...] = ()
    """Programs such as `iptables-nft-restore`, each with its input: the other tables, after the sets that they use."""

    @property
    def has_firewalld(self) -> bool:
        """Whether firewalld's rules are there, by the nftables back end or that of iptables."""
        return any(table.name == "firewalld" and table.family == "inet" for table in self.tables) or any(
            "INPUT_ZONES" in text
            for text in (*(table.text for table in self.tables), *(text for _, text in self.restores))
        )


def read(limit: TimeLimit) -> KernelTables:
    """Read them all. Raises `NotProvenError` where that is impossible."""
    nft = needed("nft", "nftables")
    try:
        listed = run([nft, "--stateless", "list", "ruleset"], limit)
    except NotProvenError as error:
        if "Operation not permitted" in str(error):
            raise NotProvenError(_AS_ROOT) from None
        raise
    found = tables(listed.output)
    # Without the libraries of iptables, nft leaves out what it does not understand, and only warns.
    managed = set(_MANAGED.findall(listed.errors))
    compat = [table for table in found if table.is_compat or (table.family, table.name) in managed]
    restores = list(_legacy(limit))
    for family, name in _FAMILIES.items():
        if not any(table.family == family for table in compat):
            continue
        saved = _sections(run([needed(f"{name}-nft-save", "iptables")], limit).output)
        covered = [table for table in compat if table.family == family and table.name in saved]
        found = [table for table in found if table not in covered]
        restores.append((f"{name}-nft-restore", "".join(saved[table.name] for table in covered)))
    if any("--match-set" in text for _, text in restores):
        restores.insert(0, (IPSET, run([needed(IPSET, IPSET), "save"], limit).output))
    if rest := [table for table in found if table in compat]:
        raise NotProvenError(f"table {rest[0]} has expressions of iptables that cannot be copied")
    return KernelTables(tuple(found), tuple(restores))


def _legacy(limit: TimeLimit) -> Iterator[tuple[str, str]]:
    """The tables of iptables-legacy, which the kernel keeps apart from those of nftables."""
    for family, name in _FAMILIES.items():
        try:
            used = (PROC / "net" / f"{family}_tables_names").read_text().split()
        except FileNotFoundError:
            continue
        except OSError:
            raise NotProvenError(_AS_ROOT) from None
        if used:
            save = program(f"{name}-legacy-save")
            if save is None:
                raise NotProvenError(f"`{name}-legacy-save` not found, and the kernel has its tables: install iptables")
            yield f"{name}-legacy-restore", run([save], limit).output


def _sections(saved: str) -> dict[str, str]:
    """The tables of the output of `iptables-save`, each from `*NAME` to `COMMIT`."""
    found: dict[str, str] = {}
    name = ""
    for line in saved.splitlines(keepends=True):
        if line.startswith("*"):
            name = line[1:].strip()
        if name:
            found[name] = found.get(name, "") + line
        if line.startswith("COMMIT"):
            name = ""
    return found
