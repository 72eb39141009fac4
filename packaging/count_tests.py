"""What packaging/test asks of pytest's reports.

count_tests.py skipped REPORT     names the system tests that were skipped, and fails if there are any
count_tests.py failed REPORT       how many failed
count_tests.py total REPORT…      one line: N passed, N failed, N skipped; of a test in several reports the last counts,
                                  and those that passed the second time only are named
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree


def outcomes(reports: list[str]) -> Iterator[tuple[str, str, str]]:
    """Each test's name, its outcome and the reason given. A test that was expected to fail and did has passed."""
    for report in reports:
        if not Path(report).exists():
            continue
        for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (pytest wrote it)
            name = f"{case.get('classname')}.{case.get('name')}"
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                yield name, "failed", ""
            elif skipped is not None and skipped.get("type") != "pytest.xfail":
                yield name, "skipped", skipped.get("message") or ""
            else:
                yield name, "passed", ""


def main() -> int:
    what, *reports = sys.argv[1:]
    results = list(outcomes(reports))
    if what == "failed":
        print(sum(outcome == "failed" for _, outcome, _ in results))
        return 0
    if what == "skipped":
        missing = [(name, why) for name, outcome, why in results if outcome == "skipped" and "tests.system" in name]
        for name, why in missing:
            print(f"a system test was skipped, which counts as a failure: {name}: {why}")
        return 1 if missing else 0
    last = {name: outcome for name, outcome, _ in results}
    count = {outcome: list(last.values()).count(outcome) for outcome in ("passed", "failed", "skipped")}
    print(", ".join(f"{n} {outcome}" for outcome, n in count.items()))
    for name in sorted({name for name, outcome, _ in results if outcome == "failed" and last[name] == "passed"}):
        print(f"unsteady, failed at first and passed when run alone: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
