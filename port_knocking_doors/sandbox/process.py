"""The owner's side: requests to an agent, and the processes that the agent started."""

import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from pathlib import Path
from typing import Any

from port_knocking_doors.errors import SandboxError
from port_knocking_doors.sandbox.channel import AgentMessage, Channel

ANSWER_WITHIN = 20.0
"""Seconds for an agent's answer, beyond the time of the request itself."""


class RequestError(SandboxError):
    """An agent answered with an error; `kind` is its class, or for firewalld's errors their code."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class AgentRequest:
    """One pending request: its answer, and for a started process its exit status."""

    def __init__(self) -> None:
        self.answer: Future[tuple[Any, list[int]]] = Future()
        self.exit: Future[int] = Future()

    def fail(self, error: SandboxError) -> None:
        for future in (self.answer, self.exit):
            if not future.done():
                future.set_exception(error)


class AgentLink:
    """The connection to one host's agent; any thread may ask."""

    def __init__(self, name: str, end: socket.socket) -> None:
        self._name = name
        self._channel = Channel(end)
        self._lock = threading.Lock()
        self._ended = False
        self._hello = AgentRequest()
        self._requests: dict[int, AgentRequest] = {0: self._hello}
        self._last = 0
        self._reader = threading.Thread(target=self._read, name=f"sandbox {name}", daemon=True)
        self._reader.start()

    def hello(self) -> int:
        """Wait for the agent; returns its process number inside the sandbox."""
        return int(self._result(self._hello, ANSWER_WITHIN)[0])

    def ask(self, operation: str, within: float = 0.0, **arguments: Any) -> Any:
        """Send one request and return its answer; `within`: seconds that the operation itself may take."""
        return self._result(self._start(operation, arguments, ()), within + ANSWER_WITHIN)[0]

    def spawn(self, descriptors: Sequence[int], **arguments: Any) -> tuple[AgentRequest, int, int]:
        """Start a process; returns the request, and the process number inside and outside of the sandbox."""
        request = self._start("spawn", arguments, descriptors)
        inner, (handle,) = self._result(request, ANSWER_WITHIN)
        try:
            return request, int(inner), _pid_of(handle)
        finally:
            os.close(handle)

    def close(self) -> None:
        self._channel.shut_down()
        self._reader.join()
        self._channel.close()

    def _start(self, operation: str, arguments: AgentMessage, descriptors: Sequence[int]) -> AgentRequest:
        request = AgentRequest()
        with self._lock:
            if self._ended:
                raise self._gone()
            self._last += 1
            number = self._last
            self._requests[number] = request
        try:
            self._channel.send({"id": number, "operation": operation, **arguments}, descriptors)
        except OSError:
            raise self._gone() from None
        return request

    def _result(self, request: AgentRequest, timeout: float) -> tuple[Any, list[int]]:
        try:
            return request.answer.result(timeout)
        except FutureTimeout:
            raise SandboxError(f"sandbox: host {self._name} did not answer within {timeout:g} s") from None

    def _gone(self) -> SandboxError:
        return SandboxError(f"sandbox: host {self._name} has ended")

    def _read(self) -> None:
        while (received := self._channel.receive()) is not None:
            self._take(*received)
        with self._lock:
            self._ended = True
            unanswered = list(self._requests.values())
        for request in unanswered:
            request.fail(self._gone())

    def _take(self, message: AgentMessage, descriptors: list[int]) -> None:
        number = message["id"]
        request = self._requests[number]
        if "exit" in message:
            request.exit.set_result(message["exit"])
        elif "error" in message:
            request.answer.set_exception(RequestError(message["error"], message["kind"]))
        else:
            request.answer.set_result((message["value"], descriptors))
            if descriptors:  # a process: its exit status follows
                return
        with self._lock:
            del self._requests[number]


def _pid_of(handle: int) -> int:
    """The process number of a pidfd outside of the sandbox; -1 once the process is gone."""
    text = Path(f"/proc/self/fdinfo/{handle}").read_text()
    found = re.search(r"^Pid:\s+(-?\d+)", text, re.MULTILINE)
    return int(found[1]) if found else -1


class Output:
    """The output of a process on one stream, collected while it runs."""

    def __init__(self, descriptor: int, what: str) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._what = what
        self._changed = threading.Condition()
        self._data = bytearray()
        self._ended = False
        self._thread = threading.Thread(target=self._collect, name=f"sandbox {what}", daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """All output so far."""
        with self._changed:
            return self._data.decode(errors="replace")

    @property
    def lines(self) -> list[str]:
        """All lines so far, the last one even if it is incomplete."""
        return self.text.splitlines()

    def tail(self, count: int = 5) -> str:
        """The last lines as one line, for an error message."""
        return " | ".join(line.strip() for line in self.lines[-count:]) or "(no output)"

    def wait_for(self, pattern: str, timeout: float, *, start: int = 0) -> str:
        """Wait until the regular expression is found in line `start` or later; returns that line."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self._data.decode(errors="replace").splitlines()[start:]:
                    if re.search(pattern, line):
                        return line
                left = deadline - time.monotonic()
                if self._ended or left <= 0 or not self._changed.wait(left):
                    break
        why = "it ended" if self._ended else f"{timeout:g} s were over"
        raise SandboxError(f"sandbox: {self._what} did not write {pattern!r} before {why}: {self.tail()}")

    def wait_for_end(self, timeout: float | None) -> bool:
        """Wait until every writer has closed the stream."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def drain(self) -> None:
        """Read the available output: all of it, if the process has exited."""
        with self._changed:
            while not self._ended:
                try:
                    chunk = os.read(self._descriptor, 65536)
                except BlockingIOError:
                    break
                self._data += chunk
                self._ended = not chunk
            self._changed.notify_all()

    def _collect(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while not self._ended:
            poll.poll()
            self.drain()
        os.close(self._descriptor)


class Process:
    """A process on a host: like `subprocess.Popen`, with its output collected.

    Signals go to the process itself, not to a wrapper. `pid` is its number outside of the sandbox (for /proc), or -1
    if it ended too early; `inner_pid` is its number inside.
    """

    def __init__(
        self,
        link: AgentLink,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.args = list(argv)
        self.name = Path(self.args[0]).name
        self._link = link
        with _Streams(self.name, stdin, stdout, stderr) as streams:
            self._request, self.inner_pid, self.pid = link.spawn(
                streams.descriptors, argv=self.args, env=dict(env), cwd=cwd
            )
            self.stdout, self.stderr = streams.outputs()

    def __str__(self) -> str:
        status = self.poll()
        return f"{' '.join(self.args)} ({'running' if status is None else f'ended with {status}'})"

    @property
    def returncode(self) -> int | None:
        """Exit status as in `subprocess`: -15 for SIGTERM; None while it runs."""
        return self.poll()

    def poll(self) -> int | None:
        return self._request.exit.result() if self._request.exit.done() else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit and the rest of the output; raises `subprocess.TimeoutExpired`."""
        try:
            status = self._request.exit.result(timeout)
        except FutureTimeout:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
        for output in (self.stdout, self.stderr):
            output.drain()
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        self._link.ask("signal", pid=self.inner_pid, number=int(number))

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait_for(self, pattern: str, timeout: float = 10.0) -> str:
        """Wait for a line of standard error that matches the regular expression, and return it."""
        return self.stderr.wait_for(pattern, timeout)


class _Streams:
    """The three streams of a new process: its ends, and the collectors at the other ends."""

    def __init__(self, name: str, stdin: int | None, stdout: int | None, stderr: int | None) -> None:
        self._name = name
        self._mine: list[int] = []
        self._theirs: list[int] = []
        self.descriptors = (
            self._nothing() if stdin is None else stdin,
            self._pipe() if stdout is None else self._given(stdout),
            self._pipe() if stderr is None else self._given(stderr),
        )

    def __enter__(self) -> "_Streams":
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._theirs + self._mine:
            os.close(descriptor)

    def outputs(self) -> tuple[Output, Output]:
        """Start to collect."""
        descriptors, self._mine = self._mine, []
        stdout, stderr = (
            Output(descriptor, f"{self._name} ({stream})")
            for descriptor, stream in zip(descriptors, ("stdout", "stderr"), strict=True)
        )
        return stdout, stderr

    def _nothing(self) -> int:
        self._theirs.append(os.open(os.devnull, os.O_RDWR))
        return self._theirs[-1]

    def _pipe(self) -> int:
        mine, theirs = os.pipe()
        self._mine.append(mine)
        self._theirs.append(theirs)
        return theirs

    def _given(self, descriptor: int) -> int:
        """A descriptor of the caller; its output is not collected and ends at once."""
        self._mine.append(os.open(os.devnull, os.O_RDONLY))
        return descriptor


def feed(text: str) -> int:
    """A descriptor to read the text from; the caller closes it."""
    reading, writing = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "w") as stream:
            stream.write(text)

    threading.Thread(target=write, name="sandbox input", daemon=True).start()
    return reading
