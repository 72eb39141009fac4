"""The soak test in short, and that it notices a daemon that breaks a promise. The long one: `python -m tests.soak`."""

from pathlib import Path

import pytest

from tests.soak.soak import Finding, Soak

FAULTS = ("clock_jump", "sighup_good", "reload", "sighup_bad", "kill")


def test_short_soak_finds_no_broken_promise(tmp_path: Path) -> None:
    soak = Soak(tmp_path, seconds=5, seed=1, patience=1.8, first=FAULTS, addresses=16, hasty=True, say=print)
    soak.run()
    # What could be judged of it depends on how busy the machine is; that something was does not.
    assert soak.surely_completed > 0
    assert soak.counts["doors seen"] > 0
    assert sum(number for name, number in soak.counts.items() if name.startswith("connections")) > 0


def test_soak_finds_daemon_that_restores_nothing_after_reload(tmp_path: Path) -> None:
    soak = Soak(
        tmp_path, seconds=12, seed=1, first=("reload", "reload"), addresses=16, broken="deaf-to-reloads", say=print
    )
    with pytest.raises(Finding, match=r"shut and should be open|who should get in does not|marked rules are") as found:
        soak.run()
    assert "seed 1, the last actions" in str(found.value)
    assert "begin reload" in str(found.value)
