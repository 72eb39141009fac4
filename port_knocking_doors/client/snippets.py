"""Snippets that knock: for ssh, for shells and PowerShell without this program, for a phone app.

Every snippet shows the sequence. `HOST` is the server where no other name is given; names are quoted for the shell or
program that reads them.
"""

import base64
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from port_knocking_doors.client.packets import SendMethod, flags, send_method
from port_knocking_doors.config.readers import knock_step
from port_knocking_doors.model import PAYLOAD, Flags, Step

HOST = "HOST"
PAUSE = 0.2
"""Seconds between two knocks: enough to keep their order in the network."""

_NC_SECONDS = 1.0
"""What `nc -w 1` takes for one knock."""

_HPING_OPTIONS = {
    Flags.FIN: "-F",
    Flags.SYN: "-S",
    Flags.RST: "-R",
    Flags.PSH: "-P",
    Flags.ACK: "-A",
    Flags.URG: "-U",
}


@dataclass(frozen=True)
class Snippets:
    """The snippets for a sequence and a host."""

    steps: tuple[Step, ...] = field(repr=False)
    host: str = HOST
    port: int | None = None
    """The guarded TCP port to connect to, if it is known."""
    close_steps: tuple[Step, ...] = field(default=(), repr=False)
    """The steps that close the door ahead of time; empty for none."""
    any_payload: bool = False
    """Whether the server takes datagrams with any content for knocks."""

    def text(self) -> str:
        """All snippets, each below a heading."""
        pieces = [
            ("This program; where its configuration file is, leave out the steps", self.command()),
            ("ssh, in ~/.ssh/config, with this program", self.ssh()),
            (f"A POSIX shell with any nc, {shell_time(len(self.steps))}{self._needs()}", self.shell()),
            ("Windows PowerShell", self.powershell()),
            ("A phone app, such as Knock on Ports for Android", self.phone()),
        ]
        if self._all_datagrams:
            pieces.insert(3, ("bash, without any program", self.bash()))
        if self.close_steps:
            closing = Snippets(self.close_steps, self.host)
            pieces.append(("To close the door ahead of time, with this program", closing.command()))
            pieces.append((f"To close it from a POSIX shell with any nc{closing._needs()}", closing.shell()))
        return "\n\n".join(f"## {title}\n\n{piece}" for title, piece in pieces)

    def command(self) -> str:
        """A command line for this program."""
        wait = f" --wait {self.port}" if self.port else ""
        return f"port-knocking-doors knock {self._quoted} {self._words()}{wait}"

    def ssh(self) -> str:
        """For ssh's configuration."""
        lines = [f"Host {self.host}"]
        if self.port not in (None, 22):
            lines.append(f"    Port {self.port}")
        # A % begins a token of ssh_config(5); no step has one.
        lines.append(f"    ProxyCommand port-knocking-doors knock %h {self._words()} --connect %p")
        return "\n".join(lines)

    def shell(self) -> str:
        """One line for a shell if all knocks are datagrams, else one for each knock."""
        if self._all_datagrams:
            return shell_line((step.port for step in self.steps), self._quoted)
        return "\n".join(f"{self._shell_knock(step)}; sleep {PAUSE}" for step in self.steps)

    def bash(self) -> str:
        """One line for bash, which sends datagrams itself, in a fraction of a second each."""
        ports = " ".join(str(step.port) for step in self.steps)
        return f"for p in {ports}; do printf 'knock\\n' >/dev/udp/{self._quoted}/$p; sleep {PAUSE}; done"

    def _shell_knock(self, step: Step) -> str:
        how = send_method(step)
        if how is SendMethod.DATAGRAM:
            return _shell_datagram(self._quoted, str(step.port))
        if how is SendMethod.CONNECT:
            return f"nc -z -w 1 {self._quoted} {step.port}"
        options = "".join(f" {option}" for flag, option in _HPING_OPTIONS.items() if flags(step) & flag)
        return f"hping3 -q -c 1 -p {step.port}{options} {self._quoted} >/dev/null 2>&1"

    def powershell(self) -> str:
        """For Windows PowerShell 5.1 and PowerShell 7."""
        lines = ["$knockHost = '" + self.host.replace("'", "''") + "'"]
        if any(send_method(step) is SendMethod.DATAGRAM for step in self.steps):
            lines.append('$knock = [Text.Encoding]::ASCII.GetBytes("knock`n")')
        lines += [line for step in self.steps for line in self._powershell_knock(step)]
        return "\n".join(lines)

    def _powershell_knock(self, step: Step) -> Iterator[str]:
        pause = f"Start-Sleep -Milliseconds {PAUSE * 1000:g}"
        how = send_method(step)
        if how is SendMethod.RAW:
            yield f"# {_in_words(step)}: PowerShell cannot send it"
        elif how is SendMethod.DATAGRAM:
            yield f"$c = New-Object Net.Sockets.UdpClient $knockHost, {step.port}"
            yield f"[void]$c.Send($knock, $knock.Length); {pause}; $c.Close()"
        else:
            # Closed before Windows repeats a refused attempt, which it does after half a second.
            yield "$c = New-Object Net.Sockets.TcpClient"
            yield f"[void]$c.ConnectAsync($knockHost, {step.port}); {pause}; $c.Close()"

    def phone(self) -> str:
        """What to enter in the app."""
        lines = [f"Host {self.host}, {PAUSE * 1000:g} ms between the packets:"]
        lines += [f"{position}. {_in_words(step)}" for position, step in enumerate(self.steps, start=1)]
        if any(send_method(step) is SendMethod.DATAGRAM for step in self.steps) and self.any_payload:
            lines.append("Content of each UDP packet: anything, or nothing")
        elif any(send_method(step) is SendMethod.DATAGRAM for step in self.steps):
            code = base64.b64encode(PAYLOAD).decode()
            lines.append(
                f'Content of each UDP packet: the word "knock" and a newline, {len(PAYLOAD)} bytes; '
                f"in hexadecimal {PAYLOAD.hex()}, in Base64 {code}"
            )
        return "\n".join(lines)

    def _needs(self) -> str:
        raw = any(send_method(step) is SendMethod.RAW for step in self.steps)
        return "; hping3 needs root and supports IPv4 only" if raw else ""

    @property
    def _all_datagrams(self) -> bool:
        return all(send_method(step) is SendMethod.DATAGRAM for step in self.steps)

    @property
    def _quoted(self) -> str:
        return shlex.quote(self.host)

    def _words(self) -> str:
        return " ".join(knock_step.spell(_as_sent(step)) for step in self.steps)


def shell_line(ports: Iterable[int], host: str = HOST) -> str:
    """Knocks on UDP ports, as a line for a POSIX shell with any netcat; `host` is quoted already.

    Without `-w` OpenBSD's netcat waits for an answer without limit, and `-q` is Debian's own. The pause keeps the order
    of the knocks with nmap's netcat, which does not wait.
    """
    return f"for p in {' '.join(map(str, ports))}; do {_shell_datagram(host, '$p')}; sleep {PAUSE}; done"


def shell_time(knocks: int) -> str:
    """How long the shell's snippet takes for so many knocks."""
    return f"in about {knocks * (_NC_SECONDS + PAUSE):.0f} s"


def _shell_datagram(host: str, port: str) -> str:
    return f"printf 'knock\\n' | nc -u -w 1 {host} {port}"


def _as_sent(step: Step) -> Step:
    return Step(step.protocol, step.port, flags(step)) if send_method(step) is not SendMethod.DATAGRAM else step


def _in_words(step: Step) -> str:
    if send_method(step) is SendMethod.DATAGRAM:
        return f"UDP {step.port}"
    if send_method(step) is SendMethod.CONNECT:
        return f"TCP {step.port}"
    names = " ".join(str(flag.name) for flag in Flags if flag & flags(step)) or "no flag"
    return f"TCP {step.port} with {names} alone"
