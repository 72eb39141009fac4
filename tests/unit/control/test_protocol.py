"""Requests and answers on the control socket: any bytes are a value or an error."""

import json
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from port_knocking_doors.control import protocol
from port_knocking_doors.control.protocol import Request, Verb
from port_knocking_doors.errors import ConfigError, DoorsError, NotDoneError

A = ip_address("10.0.0.2")


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ('{"do":"status"}', Request(Verb.STATUS)),
        ('{"do":"open","address":"10.0.0.2"}', Request(Verb.OPEN, A)),
        ('{"do":"open","address":"::ffff:10.0.0.2"}', Request(Verb.OPEN, A)),
        ('{"do":"open","address":"10.0.0.2","sequence":"ssh"}', Request(Verb.OPEN, A, "ssh")),
        ('{"do":"open","address":"fe80::1%eth0"}', Request(Verb.OPEN, ip_address("fe80::1"))),
        ('{"do":"close","address":"10.0.0.2"}', Request(Verb.CLOSE, A)),
        ('{"do":"close","all":true}', Request(Verb.CLOSE)),
        ('{"do":"forget","address":"2001:DB8::7"}', Request(Verb.FORGET, ip_address("2001:db8::7"))),
        (' {"do" : "reload"} \r\n', Request(Verb.RELOAD)),
        ('{"do":"watch","seconds":2.5}', Request(Verb.WATCH, seconds=2.5)),
    ],
)
def test_request_is_read_and_written_back(line: str, request_: Request) -> None:
    assert protocol.read_request(line.encode()) == request_
    assert protocol.read_request(protocol.write_request(request_)) == request_


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "not a JSON object"),
        (b"status", "not a JSON object"),
        (b'"status"', "not a JSON object"),
        (b'["status"]', "not a JSON object"),
        (b'{"do":"status"', "not a JSON object"),
        (b'{"do":"status"}{"do":"reload"}', "not a JSON object"),
        (b"\xff\xfe\x00", "not a JSON object"),
        (b"[" * 4000, "not a JSON object"),
        (b'{"do":' + b"9" * 5000 + b"}", "too long"),
        (b"{}", '"do" is wrong'),
        (b'{"do":"dance"}', '"do" is wrong'),
        (b'{"do":["open"]}', '"do" is wrong'),
        (b'{"do":{}}', '"do" is wrong'),
        (b'{"do":"status","address":"10.0.0.2"}', "a key is unknown"),
        (b'{"do":"open"}', '"address" is missing'),
        (b'{"do":"open","address":167772162}', "expected a string"),
        (b'{"do":"open","address":"10.0.0.0/24"}', "not an address"),
        (b'{"do":"open","address":"host.example"}', "not an address"),
        (b'{"do":"open","address":"10.0.0.2; reboot"}', "not an address"),
        (b'{"do":"open","address":"0.0.0.0"}', "no packet can come"),
        (b'{"do":"open","address":"ff02::1"}', "no packet can come"),
        (b'{"do":"open","address":"::ffff:0.0.0.0"}', "no packet can come"),
        (b'{"do":"open","address":"10.0.0.2","sequence":7}', '"sequence" is wrong'),
        (json.dumps({"do": "open", "address": "10.0.0.2", "sequence": "s" * 257}).encode(), '"sequence" is wrong'),
        (b'{"do":"close"}', 'either "address" or "all"'),
        (b'{"do":"close","address":"10.0.0.2","all":true}', 'either "address" or "all"'),
        (b'{"do":"close","all":1}', '"all" is wrong'),
        (b'{"do":"watch"}', '"seconds" is wrong'),
        (b'{"do":"watch","seconds":0}', '"seconds" is wrong'),
        (b'{"do":"watch","seconds":true}', '"seconds" is wrong'),
        (b'{"do":"watch","seconds":NaN}', '"seconds" is wrong'),
        (b'{"do":"watch","seconds":1e999}', '"seconds" is wrong'),
        (b'{"do":"watch","seconds":3601}', '"seconds" is wrong'),
    ],
)
def test_wrong_request_is_rejected_with_reason(line: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        protocol.read_request(line)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["do", "address", "sequence", "all", "seconds", "more"])
VALUES = JSON | st.sampled_from([*(verb.value for verb in Verb), "10.0.0.2", "::1"])


@given(st.binary(max_size=300) | st.dictionaries(KEYS, VALUES).map(lambda data: json.dumps(data).encode()))
def test_any_bytes_are_request_or_error(line: bytes) -> None:
    try:
        request = protocol.read_request(line)
    except ConfigError:
        return
    assert protocol.read_request(protocol.write_request(request)) == request


def test_result_is_read_back_and_long_one_is_error() -> None:
    assert protocol.read_reply(protocol.write_result({"a": [1, None]})) == {"a": [1, None]}
    long = protocol.write_result("x" * protocol.REPLY_MAX)
    assert len(long) < 200
    with pytest.raises(NotDoneError, match="too long"):
        protocol.read_reply(long)


def test_failure_is_read_back_with_exit_status() -> None:
    with pytest.raises(NotDoneError, match="no such thing") as caught:
        protocol.read_reply(protocol.write_failure(ConfigError("no such thing")))
    assert caught.value.exit_status == 2


def test_control_characters_of_answer_are_replaced() -> None:
    with pytest.raises(NotDoneError) as caught:
        protocol.read_reply(b'{"ok":false,"problem":"\\u001b[2Jgone","status":"x"}')
    assert str(caught.value) == r"\x1b[2Jgone"
    assert caught.value.exit_status == 1


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'{"ok":true}', b'{"ok":1,"result":2}', b'{"ok":false}'])
def test_invalid_answer_is_error(line: bytes) -> None:
    with pytest.raises(DoorsError, match="another version"):
        protocol.read_reply(line)
