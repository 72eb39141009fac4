"""Requests and answers on the control socket, as bytes and as values: one line of JSON each way.

A request is an object with the verb under "do" and the keys of the verb; an unknown key is an error. An answer is
`{"ok": true, "result": …}`, or `{"ok": false, "problem": …, "status": N}` with the exit status for the command. The
answer to `watch` is followed by one line for each event.
"""

import ipaddress
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

from port_knocking_doors.errors import ConfigError, DoorsError, NotDoneError
from port_knocking_doors.model import Address
from port_knocking_doors.system.printable import escaped

REQUEST_MAX = 4096
"""Bytes of a request, its newline included."""

REPLY_MAX = 1 << 20
"""Bytes of an answer or of an event after it, newline included."""

WATCH_MAX = 3600.0
"""Seconds that one `watch` lasts at most."""

NAME_MAX = 256
"""Characters of a sequence's name."""


def socket_name(priority: int | str) -> str:
    """The socket's name in the runtime directory for this mark, or a pattern for such names."""
    return f"control-{priority}.sock"


class Verb(str, Enum):
    """What can be requested."""

    STATUS = "status"
    OPEN = "open"
    CLOSE = "close"
    FORGET = "forget"
    RELOAD = "reload"
    WATCH = "watch"


@dataclass(frozen=True)
class Request:
    """One request to the daemon."""

    verb: Verb
    address: Address | None = None
    """The address whose doors or progress are meant; None with `CLOSE` for all."""
    sequence: str = ""
    """With `OPEN`: the sequence to open; empty for the opening sequence."""
    seconds: float = 0.0
    """With `WATCH`: for how long."""


_KEYS: dict[Verb, frozenset[str]] = {
    Verb.STATUS: frozenset(),
    Verb.OPEN: frozenset({"address", "sequence"}),
    Verb.CLOSE: frozenset({"address", "all"}),
    Verb.FORGET: frozenset({"address"}),
    Verb.RELOAD: frozenset(),
    Verb.WATCH: frozenset({"seconds"}),
}


def read_address(text: str) -> Address:
    """The canonical address: one mapped from IPv4 is the IPv4 address, and an interface's name is left out.

    Raises `ConfigError` for text that is no address, and for one that no packet can come from.
    """
    try:
        address = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        raise ConfigError("not an address, expected one such as 192.0.2.7 or 2001:db8::7") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified or address.is_multicast:
        raise ConfigError("no packet can come from this address, expected the address of a host")
    return address


def read_request(line: bytes) -> Request:
    """The request in one line, with or without its newline. Raises `ConfigError`, which quotes no part of it."""
    if len(line) > REQUEST_MAX:
        raise ConfigError(f"the request is too long, expected at most {REQUEST_MAX} bytes")
    data = _object(line, "the request")
    try:
        verb = Verb(data.pop("do", None))
    except (ValueError, TypeError):
        raise ConfigError(f'"do" is wrong, expected one of: {", ".join(verb.value for verb in Verb)}') from None
    if data.keys() - _KEYS[verb]:
        known = ", ".join(sorted(_KEYS[verb])) or "nothing"
        raise ConfigError(f"{verb.value}: a key is unknown, expected: {known}")
    address = data.get("address")
    if address is not None and not isinstance(address, str):
        raise ConfigError('"address" is wrong, expected a string')
    is_all = data.get("all", False)
    if not isinstance(is_all, bool):
        raise ConfigError('"all" is wrong, expected true or false')
    if verb in (Verb.OPEN, Verb.FORGET) and address is None:
        raise ConfigError(f'{verb.value}: "address" is missing')
    if verb is Verb.CLOSE and (address is None) is not is_all:
        raise ConfigError('close: expected either "address" or "all"')
    return Request(
        verb,
        None if address is None else read_address(address),
        _read_name(data.get("sequence", "")),
        _read_seconds(data.get("seconds")) if verb is Verb.WATCH else 0.0,
    )


def write_request(request: Request) -> bytes:
    """The line that `read_request` reads as this request."""
    data: dict[str, Any] = {"do": request.verb.value}
    if request.address is not None:
        data["address"] = str(request.address)
    elif request.verb is Verb.CLOSE:
        data["all"] = True
    if request.sequence:
        data["sequence"] = request.sequence
    if request.verb is Verb.WATCH:
        data["seconds"] = request.seconds
    return write_line(data)


def write_result(result: object) -> bytes:
    """The answer to a request that was carried out."""
    return fitting_result(result) or write_failure(DoorsError("the answer is too long"))


def fitting_result(result: object) -> bytes | None:
    """The answer to a request that was carried out; None if it is too long."""
    line = write_line({"ok": True, "result": result})
    return line if len(line) <= REPLY_MAX else None


def write_failure(error: DoorsError) -> bytes:
    """The answer to a request that failed."""
    return write_line({"ok": False, "problem": str(error)[:REQUEST_MAX], "status": error.exit_status})


def write_line(data: object) -> bytes:
    """One line of JSON, without control characters."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def read_reply(line: bytes) -> Any:
    """The result in an answer. Raises `NotDoneError` for a failure, `DoorsError` if the line is no answer."""
    try:
        data = _object(line, "the answer")
        if data["ok"] is True:
            return data["result"]
        problem, status = data["problem"], data["status"]
    except (ConfigError, KeyError):
        raise DoorsError("the daemon's answer is invalid; it may be of another version: restart it") from None
    status = status if isinstance(status, int) and 1 <= status <= 125 else 1
    raise NotDoneError(escaped(str(problem)), status)


def read_event(line: bytes) -> dict[str, Any] | None:
    """One of the events after the answer to `watch`; None for an invalid one."""
    try:
        return _object(line, "the event")
    except ConfigError:
        return None


def _object(line: bytes, what: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):  # ValueError: also for bytes that are no UTF-8
        data = None
    if not isinstance(data, dict):
        raise ConfigError(f"{what} is not a JSON object on one line")
    return data


def _read_name(value: object) -> str:
    if not isinstance(value, str) or len(value) > NAME_MAX:
        raise ConfigError(f'"sequence" is wrong, expected a name of at most {NAME_MAX} characters')
    return value


def _read_seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= WATCH_MAX:
        raise ConfigError(f'"seconds" is wrong, expected a number above 0 and at most {WATCH_MAX:g}')
    return float(value)
