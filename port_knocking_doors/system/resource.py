"""Base of context managers that hold sockets and the like."""

from abc import ABC, abstractmethod
from typing import TypeVar

S = TypeVar("S", bound="Resource")


class Resource(ABC):
    """Opened by `with` and closed at its end; closed, too, if opening fails halfway."""

    @abstractmethod
    def open(self) -> None:
        """Acquire everything. If this raises, `with` calls `close` and raises the same."""

    @abstractmethod
    def close(self) -> None:
        """Release what `open` acquired so far; closing twice is harmless."""

    def __enter__(self: S) -> S:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
