"""What holds sockets and the like for as long as a `with` lasts."""

from abc import ABC, abstractmethod
from typing import TypeVar

S = TypeVar("S", bound="Resource")


class Resource(ABC):
    """Opened by `with`, closed at its end, and closed, too, where opening fails halfway."""

    @abstractmethod
    def open(self) -> None:
        """Whatever this raises is raised by `with`, once `close` has undone what was done by then."""

    @abstractmethod
    def close(self) -> None:
        """Undo `open`, as far as it came; again is harmless."""

    def __enter__(self: S) -> S:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
