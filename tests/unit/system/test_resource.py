"""Resources are closed at the end, and if opening fails."""

import pytest

from port_knocking_doors.system.resource import Resource


class Recorded(Resource):
    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[str] = []
        self._error = error

    def open(self) -> None:
        self.calls.append("open")
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.calls.append("close")


def test_resource_is_closed_at_the_end() -> None:
    with Recorded() as resource:
        assert resource.calls == ["open"]
    assert resource.calls == ["open", "close"]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_resource_that_fails_to_open_is_closed(error: BaseException) -> None:
    resource = Recorded(error)
    with pytest.raises(type(error)), resource:
        raise AssertionError("never entered")
    assert resource.calls == ["open", "close"]


def test_resource_is_closed_after_an_error() -> None:
    resource = Recorded()
    with pytest.raises(ZeroDivisionError), resource:
        raise ZeroDivisionError
    assert resource.calls == ["open", "close"]
