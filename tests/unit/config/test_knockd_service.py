"""The interface of knockd's service, from the files with its options."""

from pathlib import Path

import pytest

from port_knocking_doors.config.knockd_service import CONFIG, ServiceInterface, interface_of

DEBIAN = "# command line options\nSTART_KNOCKD=1\n{}\n"
OPTIONS = {
    # what the file has, the interface, whether it overrides /etc/knockd.conf
    "Debian's as it comes": ('#KNOCKD_OPTS="-i eth1"', None, False),
    "Debian's": ('KNOCKD_OPTS="-i ens3"', "ens3", True),
    "RHEL's": ('OPTIONS="-i eth1"', "eth1", True),
    "without quotes": ("OPTIONS=-iens3", "ens3", True),
    "a long option": ("KNOCKD_OPTS='--interface=ppp0 -v'", "ppp0", True),
    "a long option and its value": ("KNOCKD_OPTS='-D --interface wlp2s0'", "wlp2s0", True),
    "several letters": ("KNOCKD_OPTS='-vDi ens3'", "ens3", True),
    "exported, with a comment": ('export KNOCKD_OPTS="-i ens3" # the uplink', "ens3", True),
    "the last one counts": ('KNOCKD_OPTS="-i ens3"\nKNOCKD_OPTS="-i ens4"', "ens4", True),
    "no interface": ('KNOCKD_OPTS="-v"', None, False),
    "the usual file": ('KNOCKD_OPTS="-i ens3 -c /etc/knockd.conf"', "ens3", True),
    "another file": ('KNOCKD_OPTS="-i ens3 -c /etc/other.conf"', None, False),
    "computed": ('KNOCKD_OPTS="-i $(ip -o route | cut -f5)"', None, False),
    "computed in the old way": ('KNOCKD_OPTS="-i `route-device`"', None, False),
    "a placeholder": ('KNOCKD_OPTS="-i <interface>"', None, False),
    "a continued line": ('KNOCKD_OPTS="-i ens3 \\\n -v"', "ens3", True),
    "a variable": ('KNOCKD_OPTS="-i $IFACE"', None, False),
    "no name": ('KNOCKD_OPTS="-i a/b"', None, False),
    "no value": ('KNOCKD_OPTS="-i"', None, False),
    "a quote without an end": ('KNOCKD_OPTS="-i ens3', None, False),
}


@pytest.mark.parametrize(("line", "name", "overrides"), OPTIONS.values(), ids=OPTIONS)
def test_interface_of_the_service(tmp_path: Path, line: str, name: str | None, overrides: bool) -> None:
    path = tmp_path / "knockd"
    path.write_text(DEBIAN.format(line))
    found = interface_of(CONFIG, (tmp_path / "none", path))
    assert (found.interface, found.overrides) == (name, overrides)
    assert found.source == (f"{line.removeprefix('export ').partition('=')[0]} in {path}" if name else "")


def test_first_file_with_an_interface_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "default", tmp_path / "sysconfig"
    first.write_text("START_KNOCKD=1\n")
    second.write_text("OPTIONS=-iens3\n")
    assert interface_of(CONFIG, (first, second)) == ServiceInterface("ens3", f"OPTIONS in {second}", True)
    first.write_text("KNOCKD_OPTS=-ieth9\n")
    assert interface_of(CONFIG, (first, second)).interface == "eth9"


def test_service_overrides_its_own_file_only(tmp_path: Path) -> None:
    path = tmp_path / "default"
    path.write_text("KNOCKD_OPTS=-iens3\n")
    assert interface_of(Path("copy.conf"), (path,)) == ServiceInterface("ens3", f"KNOCKD_OPTS in {path}", False)
    path.write_text("KNOCKD_OPTS='-iens3 -c /srv/knockd.conf'\n")
    assert interface_of(Path("/srv/knockd.conf"), (path,)).overrides
    assert interface_of(Path("copy.conf"), (path,)) == ServiceInterface()


def test_system_without_option_files_names_no_interface(tmp_path: Path) -> None:
    assert interface_of(CONFIG, (tmp_path / "none",)) == ServiceInterface()
