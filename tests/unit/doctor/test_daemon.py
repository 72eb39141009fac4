"""What the examination says where no daemon answers."""

import pytest

from port_knocking_doors.control import client
from port_knocking_doors.doctor.daemon import no_daemon
from port_knocking_doors.doctor.finding import problem

OTHERS = {
    "none runs": ([], "no daemon is running; start it: systemctl start port-knocking-doors"),
    "another mark": ([7, 8], "no daemon is running with rule_priority = 31313; ask the one that is: --priority 7 or 8"),
}


@pytest.mark.parametrize(("others", "text"), OTHERS.values(), ids=OTHERS)
def test_missing_daemon_is_a_short_problem(others: list[int], text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "running_marks", lambda: others)
    assert no_daemon(31313) == problem(text)
