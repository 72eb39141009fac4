"""The longest turn of an event loop, by the CPU time of its thread: a busy machine makes it no longer.

As a program it runs the daemon, with its options, and writes the longest turn so far in ms, and what ran in it, to a
file: python -m tests.helpers.turns FILE [OPTION]…
"""

import asyncio
import gc
import sys
import threading
import time
from asyncio.base_events import BaseEventLoop
from pathlib import Path
from typing import Any

from port_knocking_doors.cli import main


class Turns:
    """While it is entered, every turn of every event loop in this thread is measured."""

    def __init__(self, file: Path | None = None) -> None:
        self.longest = 0.0
        """Seconds of CPU."""
        self.what = ""
        """The callback that took longest in it."""
        self._file = file
        self._loops: Any = BaseEventLoop
        self._handles: Any = asyncio.Handle

    def __enter__(self) -> "Turns":
        self._run_once, self._run = self._loops._run_once, self._handles._run
        worst, own = (0.0, ""), threading.get_ident()

        def run_once(loop: BaseEventLoop) -> None:
            nonlocal worst
            if threading.get_ident() != own:
                self._run_once(loop)
                return
            worst, began = (0.0, ""), time.thread_time()
            self._run_once(loop)
            used = time.thread_time() - began
            if used > self.longest:
                self.longest, self.what = used, worst[1]
                if self._file is not None:
                    self._file.write_text(f"{used * 1000:.1f} {self.what}\n")

        def run(handle: asyncio.Handle) -> None:
            nonlocal worst
            if threading.get_ident() != own:
                self._run(handle)
                return
            began = time.thread_time()
            self._run(handle)
            used = time.thread_time() - began
            if used > worst[0]:
                worst = (used, repr(handle))

        gc.collect()
        gc.freeze()  # what a test runner has is not the loop's
        self._loops._run_once, self._handles._run = run_once, run
        return self

    def __exit__(self, *_: object) -> None:
        self._loops._run_once, self._handles._run = self._run_once, self._run
        gc.unfreeze()


if __name__ == "__main__":
    with Turns(Path(sys.argv.pop(1))):
        main()
