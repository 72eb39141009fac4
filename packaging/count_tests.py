"""What packaging/test asks of pytest's reports.

count_tests.py skipped REPORT     names the system tests that were skipped, and fails if there are any
count_tests.py failed REPORT      how many failed
count_tests.py failures REPORT…   everything that those said that failed
count_tests.py total REPORT…      one line: N passed, N failed, N skipped; of a test in several reports the last counts,
                                  and those that failed, and those that passed the second time only, are named
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree


class Outcome(NamedTuple):
    """What became of a test."""

    name: str
    outcome: str
    said: str = ""
    """Why it was skipped, or all that is known of a failure."""


def outcomes(reports: list[str]) -> Iterator[Outcome]:
    """In the order of the reports. A test that was expected to fail and did has passed."""
    for report in reports:
        if not Path(report).exists():
            continue
        for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (pytest wrote it)
            name = f"{case.get('classname')}.{case.get('name')}"
            skipped = case.find("skipped")
            failures = [*case.findall("failure"), *case.findall("error")]
            if failures:
                yield Outcome(name, "failed", "\n".join(failure.text or "" for failure in failures))
            elif skipped is not None and skipped.get("type") != "pytest.xfail":
                yield Outcome(name, "skipped", skipped.get("message") or "")
            else:
                yield Outcome(name, "passed")


def main() -> int:
    what, *reports = sys.argv[1:]
    results = list(outcomes(reports))
    failed = [result for result in results if result.outcome == "failed"]
    if what == "failed":
        print(len(failed))
        return 0
    if what == "failures":
        for result in failed:
            print(f"\n== {result.name} said\n{result.said}")
        return 0
    if what == "skipped":
        missing = [result for result in results if result.outcome == "skipped" and "tests.system" in result.name]
        for result in missing:
            print(f"a system test was skipped, which counts as a failure: {result.name}: {result.said}")
        return 1 if missing else 0
    last = {result.name: result.outcome for result in results}
    print(", ".join(f"{list(last.values()).count(outcome)} {outcome}" for outcome in ("passed", "failed", "skipped")))
    for name in sorted({result.name for result in failed}):
        fate = "unsteady, failed at first and passed when run alone" if last[name] == "passed" else "FAILED"
        print(f"{fate}: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
