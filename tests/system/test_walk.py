"""The walk of a knock in port_knocking_doors/README.md, held against the calls of a real daemon with a real firewalld.

The daemon runs under a profile function, which notes each module of the package that is called. After one knock, the
modules of the walk must have been called in the order of the walk, from the socket to the D-Bus connection.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import port_knocking_doors
from port_knocking_doors.model import Address
from port_knocking_doors.sandbox import ClientHost, Sandbox
from tests.helpers.running import GUARDED, knock
from tests.helpers.sniffed import whole_sequence, write_sniffing

PACKAGE = Path(port_knocking_doors.__file__).parent
MODULES_MAX = 9
PROFILED = """
import json, sys
from pathlib import Path
package, calls = sys.argv.pop(1), Path(sys.argv.pop(1))
called = []
def note(frame, event, _):
    name = frame.f_code.co_filename
    if event == "call" and name.startswith(package):
        module = name[len(package) + 1 : -len(".py")]
        if called[-1:] != [module]:
            called.append(module)
from port_knocking_doors import cli
sys.setprofile(note)
try:
    cli.main()
finally:
    sys.setprofile(None)
    calls.write_text(json.dumps(called))
"""


def walk(heading: str) -> list[str]:
    """The modules of a walk, in its order."""
    text = (PACKAGE / "README.md").read_text()
    section = re.split(r"^## ", text.partition(f"## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^\d+\. \[`([\w/]+)`\]", section, re.MULTILINE)


def is_in_order(wanted: Iterable[str], calls: Iterable[str]) -> bool:
    remaining = iter(calls)
    return all(module in remaining for module in wanted)


@pytest.mark.parametrize(
    ("heading", "knock_at"),
    [
        pytest.param("One UDP knock", knock, id="udp"),
        pytest.param("One sniffed knock", whole_sequence, id="sniffed"),
    ],
)
def test_modules_of_the_walk_are_called_in_its_order(
    box: Sandbox,
    client: ClientHost,
    tmp_path: Path,
    heading: str,
    knock_at: Callable[[ClientHost, Address], None],
) -> None:
    modules = walk(heading)
    assert modules[0].startswith("capture/")
    assert modules[-1].startswith("firewall/")
    assert len(modules) <= MODULES_MAX
    assert [module for module in modules if not (PACKAGE / f"{module}.py").is_file()] == []

    calls = tmp_path / "calls"
    conf = write_sniffing(tmp_path)
    argv = [sys.executable, "-c", PROFILED, str(PACKAGE), str(calls), "--conf", str(conf)]
    daemon = box.server.popen(argv)
    daemon.wait_for(r"\bready\b", 20)
    knock_at(client, client.server4)
    daemon.wait_for(f"opened {GUARDED}/tcp", 10)
    daemon.terminate()
    assert daemon.wait(20) == 0
    called = json.loads(calls.read_text())
    started = called.index("daemon/port_audit")  # what the start does once it has logged that it is ready
    assert is_in_order(modules, called[started:])
