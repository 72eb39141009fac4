"""How the kernel's tables are read, with scripts in place of nft and iptables."""

from pathlib import Path

import pytest

from port_knocking_doors.doctor import kernel_tables
from port_knocking_doors.doctor.kernel_tables import KernelTables, read
from port_knocking_doors.doctor.programs import NotProvenError, TimeLimit
from port_knocking_doors.doctor.ruleset import Table

FILTER = "table ip filter {\n\tchain INPUT {\n\t\tudp dport 5  counter drop\n\t}\n}\n"
NAT = "table ip nat {\n\tchain DOCKER {\n\t\txt target DNAT\n\t}\n}\n"
OWN = "table inet firewalld {\n\tchain c {\n\t}\n}\n"
SAVED = "# Generated\n*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m recent -j DROP\nCOMMIT\n*nat\n:DOCKER - [0:0]\nCOMMIT\n"
SAVED_FILTER, SAVED_NAT = (
    "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m recent -j DROP\nCOMMIT\n",
    "*nat\n:DOCKER - [0:0]\nCOMMIT\n",
)
MANAGED = "# Warning: table ip filter is managed by iptables-nft, do not touch!\nXT match recent not found\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that has all programs, and a /proc without tables of iptables-legacy."""
    monkeypatch.setenv("PATH", f"{tmp_path}")
    monkeypatch.setattr("port_knocking_doors.doctor.programs._ADMINISTRATORS_PATH", "")
    monkeypatch.setattr(kernel_tables, "PROC", tmp_path / "proc")
    (tmp_path / "proc" / "net").mkdir(parents=True)
    return tmp_path


def program(folder: Path, name: str, output: str = "", errors: str = "", status: int = 0) -> None:
    """A script that writes this."""
    (folder / f"{name}.out").write_text(output)
    (folder / f"{name}.err").write_text(errors)
    script = folder / name
    script.write_text(
        f'#!/bin/sh\nwhile IFS= read -r l; do echo "$l"; done <{folder}/{name}.out\n'
        f'while IFS= read -r l; do echo "$l" >&2; done <{folder}/{name}.err\nexit {status}\n'
    )
    script.chmod(0o755)


def test_tables_of_nftables_are_read(folder: Path) -> None:
    program(folder, "nft", OWN)
    found = read(TimeLimit(10))
    assert found == KernelTables((Table("inet", "firewalld", OWN),))
    assert found.has_firewalld


@pytest.mark.parametrize(
    ("listed", "warned", "kept", "restored"),
    [
        (OWN + FILTER, MANAGED, OWN, SAVED_FILTER),
        (OWN + NAT, "", OWN, SAVED_NAT),
        (OWN + FILTER + NAT, MANAGED, OWN, SAVED_FILTER + SAVED_NAT),
        (OWN + FILTER, "", OWN + FILTER, ""),
    ],
)
def test_tables_of_iptables_are_read_by_its_own_program(
    listed: str, warned: str, kept: str, restored: str, folder: Path
) -> None:
    program(folder, "nft", listed, warned)
    program(folder, "iptables-nft-save", SAVED)
    found = read(TimeLimit(10))
    assert "".join(table.text for table in found.tables) == kept
    assert found.restores == ((("iptables-nft-restore", restored),) if restored else ())


def test_tables_of_iptables_legacy_are_read_if_there_are_any(folder: Path) -> None:
    program(folder, "nft", OWN)
    (folder / "proc" / "net" / "ip_tables_names").write_text("")
    (folder / "proc" / "net" / "ip6_tables_names").write_text("filter\n")
    program(folder, "ip6tables-legacy-save", "*filter\n-A INPUT_ZONES\nCOMMIT\n")
    found = read(TimeLimit(10))
    assert found.restores == (("ip6tables-legacy-restore", "*filter\n-A INPUT_ZONES\nCOMMIT\n"),)
    assert found._replace(tables=()).has_firewalld


def test_tables_of_iptables_legacy_that_cannot_be_read_need_root(folder: Path) -> None:
    program(folder, "nft", OWN)
    (folder / "proc" / "net" / "ip_tables_names").mkdir()  # root may read every file
    with pytest.raises(NotProvenError, match="run as root: sudo port-knocking-doors doctor"):
        read(TimeLimit(10))


def test_sets_of_iptables_are_read_where_its_rules_use_them(folder: Path) -> None:
    program(folder, "nft", OWN + FILTER, MANAGED)
    program(folder, "iptables-nft-save", SAVED_FILTER.replace("-m recent", "-m set --match-set banned src"))
    with pytest.raises(NotProvenError, match="`ipset` not found: install ipset"):
        read(TimeLimit(10))
    program(folder, "ipset", "create banned hash:ip\n")
    assert read(TimeLimit(10)).restores[0] == ("ipset", "create banned hash:ip\n")


def test_empty_kernel_has_no_firewalld(folder: Path) -> None:
    program(folder, "nft", "table inet mine {\n}\n")
    assert not read(TimeLimit(10)).has_firewalld


def test_obstacle_says_what_to_do(folder: Path) -> None:
    with pytest.raises(NotProvenError, match="`nft` not found: install nftables"):
        read(TimeLimit(10))
    program(folder, "nft", errors="Operation not permitted (you must be root)\n", status=1)
    with pytest.raises(NotProvenError, match="run as root: sudo port-knocking-doors doctor"):
        read(TimeLimit(10))
    program(folder, "nft", errors="netlink: Error: cache initialization failed\n", status=1)
    with pytest.raises(NotProvenError, match=r"^nft: netlink: Error: cache initialization failed$"):
        read(TimeLimit(10))
    program(folder, "nft", status=3)
    with pytest.raises(NotProvenError, match=r"^nft: exit status 3$"):
        read(TimeLimit(10))
    with pytest.raises(NotProvenError, match=r"^timed out after 0 s$"):
        read(TimeLimit(0))
    program(folder, "nft", OWN + NAT)
    with pytest.raises(NotProvenError, match="`iptables-nft-save` not found: install iptables"):
        read(TimeLimit(10))
    program(folder, "iptables-nft-save", "# Table `nat' is incompatible, use 'nft' tool.\n")
    with pytest.raises(NotProvenError, match="table ip nat has expressions of iptables that cannot be copied"):
        read(TimeLimit(10))
    program(folder, "nft", OWN)
    (folder / "proc" / "net" / "ip_tables_names").write_text("filter\n")
    with pytest.raises(
        NotProvenError, match="`iptables-legacy-save` not found, and the kernel has its tables: install"
    ):
        read(TimeLimit(10))


def test_hanging_program_is_ended(folder: Path) -> None:
    script = folder / "nft"
    script.write_text("#!/bin/sh\nread line </dev/zero\n")
    script.chmod(0o755)
    with pytest.raises(NotProvenError, match=r"^timed out after 0.2 s: .*/nft$"):
        read(TimeLimit(0.2))
    script.write_text("no script")
    with pytest.raises(NotProvenError, match=r"/nft: Exec format error$"):
        read(TimeLimit(10))
