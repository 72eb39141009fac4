"""Peers meet in the same sandbox as everything else."""

from tests.system.conftest import box, client, pytest_runtest_makereport

__all__ = ["box", "client", "pytest_runtest_makereport"]
