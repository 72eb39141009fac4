"""Wait for a condition instead of sleeping and hoping."""

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], object], timeout: float, describe: str | Callable[[], str], *, every: float = 0.02
) -> float:
    """Return the seconds it took until the condition held; fail with the description once `timeout` is over."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > timeout:
            raise AssertionError(f"not within {timeout:g} s: {describe if isinstance(describe, str) else describe()}")
        time.sleep(every)
    return time.monotonic() - start
