"""The sandbox that system tests run in. One that cannot be made is a failure, never a skip."""

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from port_knocking_doors.sandbox import ClientHost, Process, Sandbox

_TAIL = 25


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """A fresh server with a real firewalld, and two hosts that reach it: `client` and `stranger`."""
    with Sandbox(clients=("client", "stranger")) as sandbox:
        yield sandbox


@pytest.fixture
def client(box: Sandbox) -> ClientHost:
    """The host that knocks."""
    return box.hosts["client"]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Show with a failure what firewalld and every process on the hosts said."""
    report = (yield).get_result()
    if not report.failed or call.when != "call":
        return
    for value in getattr(item, "funcargs", {}).values():
        if isinstance(value, Sandbox):
            said = [(f"sandbox: {process}", _said(process)) for process in value.processes]
            for name, text in said:
                if text:
                    report.longrepr.addsection(name, text)


def _said(process: Process) -> str:
    return "\n".join([*process.stdout.lines[-_TAIL:], *process.stderr.lines[-_TAIL:]])
