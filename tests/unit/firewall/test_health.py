"""The log line while doors wait for firewalld."""

import pytest

from port_knocking_doors.firewall.health import FirewalldHealth, pending_line
from port_knocking_doors.system import firewalld_service

PENDING = {
    "hangs": (True, True, "firewalld does not answer: accepting knocks, doors stay pending"),
    "not running": (
        False,
        True,
        "firewalld is not running: accepting knocks, no door opens until firewalld runs: systemctl start firewalld",
    ),
    "not installed": (
        False,
        False,
        "firewalld is not installed: accepting knocks, no door opens until firewalld runs: apt install firewalld",
    ),
}


@pytest.mark.parametrize(("present", "installed", "line"), PENDING.values(), ids=PENDING)
def test_pending_line_says_what_to_do_where_firewalld_does_not_run(
    present: bool, installed: bool, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firewalld_service, "is_installed", lambda: installed)
    monkeypatch.setattr(firewalld_service, "_program", lambda name: name == "apt")
    assert pending_line(FirewalldHealth().unavailable_reason(present), present) == line
