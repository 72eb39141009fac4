"""Removes items of ours from firewalld's permanent configuration, where they would be open for ever.

`firewall-cmd --runtime-to-permanent` while a door is open puts them there.
"""

import asyncio

from port_knocking_doors.errors import FirewallError
from port_knocking_doors.firewall.error_codes import NO_ANSWER
from port_knocking_doors.firewall.kinds import FirewallItems
from port_knocking_doors.system.log import logger


class PermanentConfiguration:
    """The search, which takes two calls for each zone. It runs beside the worker, so that no door waits for its end."""

    def __init__(self, items: FirewallItems) -> None:
        self._items = items
        self._search: asyncio.Task[None] | None = None
        self.is_stale = True
        """Whether another search is needed."""

    @property
    def is_clean(self) -> bool:
        """Whether a search has ended, and none is needed since."""
        return self._search is None and not self.is_stale

    async def clean(self, wake: asyncio.Event) -> None:
        """Search until the end, or until `wake` is set: then the search goes on, and a later call waits for its end.

        Raises `FirewallError` where firewalld did not answer.
        """
        if self._search is None:
            self.is_stale = False
            self._search = asyncio.create_task(self._remove())
        waking = asyncio.create_task(wake.wait())
        try:
            await asyncio.wait({self._search, waking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
        if self._search.done():
            search, self._search = self._search, None
            search.result()

    async def _remove(self) -> None:
        try:
            async for item in self._items.remove_permanent():
                text = "zone %s: removed a rule of ours from firewalld's permanent configuration"
                logger.warning(text, item.place)
        except FirewallError as error:
            if error.code in NO_ANSWER:
                self.is_stale = True
                raise
            logger.error("cannot check firewalld's permanent configuration: %s", error)

    async def close(self) -> None:
        """End a search that runs."""
        search, self._search = self._search, None
        if search is not None:
            search.cancel()
            await asyncio.gather(search, return_exceptions=True)
