"""The keys of the project's own configuration file: one declaration that validates, writes and explains them."""

from dataclasses import dataclass, field

from port_knocking_doors.config import readers
from port_knocking_doors.config.reader_types import Reader, Seconds, Tables, Whole
from port_knocking_doors.model import Access, CommandOpening, Flags, Port, Protocol, Sequence, Step

RULES_MAX = 65536
"""The limit of firewall rules: open doors times the ports of a door."""

EXAMPLE_STEPS = (
    Step(Protocol.UDP, 1234),
    Step(Protocol.TCP, 543, Flags.SYN),
    Step(Protocol.TCP, 123, Flags.FIN | Flags.RST | Flags.PSH | Flags.ACK),
)
"""The documentation's example of a sniffed sequence, and so public."""

EXAMPLE_CLOSE_STEPS = (Step(Protocol.TCP, 2345, Flags.SYN), Step(Protocol.UDP, 678), Step(Protocol.TCP, 432, Flags.SYN))
"""Likewise, of the steps that close its door."""


@dataclass(frozen=True)
class Key:
    """One key of a table: its name in the file, the field that it sets, its reader, and its explanation."""

    name: str
    field: str
    read: Reader
    about: str
    required: bool = False
    needs: str = ""
    """Another key of the table, without which this one has no effect."""
    keys: tuple["Key", ...] = ()
    """If the value is a list of tables, the keys of each table."""


@dataclass(frozen=True)
class Entry:
    """A `[[sequence]]` as in the file: a field for each key; None for a missing one."""

    name: str
    steps: tuple[Step, ...] = field(repr=False)
    timeout: float = 10.0
    traps: int = 512
    open: tuple[Port, ...] | None = None
    duration: float = 30.0
    start_command: str | None = None
    stop_command: str | None = None
    command_delay: float = 30.0
    close_steps: tuple[Step, ...] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, sequence: Sequence) -> "Entry":
        access = sequence.access
        command = access.command
        return cls(
            name=sequence.name,
            steps=sequence.steps,
            timeout=sequence.timeout,
            traps=sequence.traps,
            open=access.ports or None,
            duration=access.duration,
            start_command=command.start if command else None,
            stop_command=command.stop or None if command else None,
            command_delay=command.delay if command and command.stop else cls.command_delay,
            close_steps=sequence.close_steps or None,
        )

    def sequence(self) -> Sequence:
        command = None
        if self.start_command is not None:
            command = CommandOpening(self.start_command)
            if self.stop_command is not None:
                command = CommandOpening(self.start_command, self.stop_command, self.command_delay)
        return Sequence(
            name=self.name,
            steps=self.steps,
            access=Access.of(self.name, self.open or (), self.duration, command),
            timeout=self.timeout,
            traps=self.traps,
            close_steps=self.close_steps or (),
        )


SEQUENCE_KEYS = (
    Key(
        "name",
        "name",
        readers.sequence_name,
        "The name of the sequence in the log. Names are unique, and the name of the opening sequence is "
        f"{readers.RESERVED_NAME}.",
        required=True,
    ),
    Key(
        "steps",
        "steps",
        readers.knock_steps,
        "The secret: one packet each, in this order. FLAGS are the letters of the flags that are set in the packet, "
        "with all others clear: f FIN, s SYN, r RST, p PSH, a ACK, u URG; or alone x for all of them, n for none. "
        "Without FLAGS a bare SYN, which is the first packet of any attempt to connect. Choose three steps or more, in "
        "an order that is hard to guess, on ports without a listening program.",
        required=True,
    ),
    Key(
        "timeout",
        "timeout",
        readers.seconds,
        "The longest time from the first knock to the last. After it the knocker starts again from the first step.",
    ),
    Key(
        "traps",
        "traps",
        readers.traps,
        "How many ports of each protocol are traps. The daemon chooses them among ports without a listening program "
        "and without a step. A packet to a trap between two steps is a wrong knock: without traps, a scan of all ports "
        "may open the door.",
    ),
    Key(
        "open",
        "open",
        readers.guarded_ports,
        "The ports that a door opens, for the address that knocked only. A sequence needs this key, start_command, or "
        "both.",
    ),
    Key(
        "duration",
        "duration",
        readers.seconds,
        "The time after which the door closes. The whole sequence, knocked again, prolongs it.",
        needs="open",
    ),
    Key(
        "start_command",
        "start_command",
        readers.shell_command,
        "The command that runs when the sequence is complete. %IP% is the knocker's address.",
    ),
    Key(
        "stop_command",
        "stop_command",
        readers.shell_command,
        "The command that runs afterwards, to undo start_command. %IP% is the knocker's address.",
        needs="start_command",
    ),
    Key(
        "command_delay",
        "command_delay",
        Seconds(low=0),
        "The time from the end of start_command to stop_command.",
        needs="stop_command",
    ),
    Key(
        "close_steps",
        "close_steps",
        readers.knock_steps,
        "The steps by which a knocker closes its own doors of this sequence ahead of time; stop_command runs at once. "
        "They are a second secret, written like steps, and knock --close sends them. They close the doors of the "
        "address that knocks and no other ones. They may not begin or end with the steps of any sequence, and no "
        "sequence may begin or end with them; several sequences may have the same close_steps. They need open or "
        "stop_command.",
    ),
)

IMPORT_KEYS = (
    Key("format", "dialect", readers.foreign_format, "The daemon whose file is imported.", required=True),
    Key(
        "path",
        "path",
        readers.file_path,
        "The file. It is read as it is, and never written; messages about it give its own name and line.",
        required=True,
    ),
    Key(
        "traps",
        "traps",
        readers.traps,
        "As in a [[sequence]], for each sequence of the file. The other daemons have no traps.",
    ),
)

KEYS = (
    Key(
        "ports_to_controls",
        "guarded_ports",
        readers.guarded_ports,
        "The ports that a door opens, for the address that knocked only. A port is TCP unless it ends in /udp. The "
        "daemon only opens ports. The zone must keep them closed to all other addresses: remove their services from "
        "the zone.",
        required=True,
    ),
    Key(
        "opening_sequence",
        "opening_sequence",
        readers.sequence,
        "The secret: UDP ports in the order of their knocks. A knock is one datagram of six bytes, the word knock and "
        "a newline. The documentation's example is public: choose your own, in an order that is hard to guess, of "
        f"{readers.SEQUENCE_SHORT} ports or more. Outside of net.ipv4.ip_local_port_range (mostly 32768 to 60999) no "
        "outgoing connection has one of them when the daemon starts.",
        required=True,
    ),
    Key(
        "payload",
        "payload",
        readers.payload,
        "The content of the datagrams that are knocks of the opening sequence. knock: the word knock and a newline, "
        "nothing else. any: every datagram, an empty one included, so that apps and programs can knock which send "
        "something of their own, such as the knock of knockd. Then each datagram that scanners send to a knock port is "
        "a knock, mostly a wrong one, and the kernel drops none of them before the daemon sees it. Sniffed sequences "
        "take any payload in either case.",
    ),
    Key(
        "firewall_rules_check_periode_seconds",
        "rule_check_period",
        readers.seconds,
        "How often the rules in firewalld are compared with the rules that doors need, and corrected.",
    ),
    Key(
        "ignoring_period_after_knock_error",
        "ignoring_period",
        readers.seconds_or_zero,
        "The time for which an address is ignored that is wrong again and again. Knocks within it have no effect; "
        "after it the knocker starts again from the first step. Wrong knocks that a lost packet explains are forgiven. "
        "With 0 no address is ignored, and guessing costs no time.",
    ),
    Key(
        "max_knocker_live_time",
        "knocker_lifetime",
        readers.seconds,
        "The longest pause between two knocks. After it the knocker starts again from the first step.",
    ),
    Key(
        "max_opened_door_duration",
        "door_duration",
        readers.seconds,
        "The time after which a door closes. The whole sequence, knocked again, prolongs it. Connections that are "
        "established when the door closes continue.",
    ),
    Key(
        "doors_cleanup_periode",
        "doors_cleanup_period",
        readers.seconds,
        "Kept for files of version 1. Doors close at their deadline, and at the latest this time after it.",
    ),
    Key(
        "zone",
        "zone",
        readers.zone_name,
        "The firewalld zone in which doors open. Empty: the zone of the knocker's source address, else the zone of the "
        "interface on which the knock arrived, else the default zone.",
    ),
    Key(
        "open_knock_ports",
        "open_knock_ports",
        readers.flag,
        "Whether the daemon opens the knock ports in the zone while it runs. With false, open them yourself, or no "
        "knock arrives.",
    ),
    Key(
        "doors_for_banned",
        "doors_for_banned",
        readers.flag,
        "Whether a door opens for an address that is banned in firewalld: the address, its network or a set with it is "
        "a source of a zone whose target is DROP or REJECT (the zones drop and block), or of a rich rule that drops or "
        "rejects packets to a port of the door. With true, a door in such a zone lets the address in; a rich rule of a "
        "priority below rule_priority still wins over the door.",
    ),
    Key(
        "max_knockers",
        "max_knockers",
        Whole(1, 2**20),
        "How many knockers are remembered at once. In a flood, the knockers with the fewest steps are forgotten first.",
    ),
    Key(
        "max_open_doors",
        "max_open_doors",
        Whole(1, RULES_MAX),
        "How many doors may be open at once. Beyond this limit a new door is refused; no open door is closed for it. "
        f"Doors times guarded ports may be {RULES_MAX} at most.",
    ),
    Key(
        "rule_priority",
        "rule_priority",
        readers.rule_priority,
        "The mark by which the daemon recognizes its own rules in firewalld. A second daemon on the same machine needs "
        "another one. It is above 0, so that the zone's own denials win.",
    ),
    Key(
        "sequence",
        "sequences",
        Tables("sequence"),
        "Sequences that are sniffed: their ports are closed and look closed. Packets are captured on every interface, "
        "or on those of --interface. No sequence may begin with all steps of another one or of the opening sequence, "
        f"whose name is {readers.RESERVED_NAME}; imported sequences may.",
        keys=SEQUENCE_KEYS,
    ),
    Key(
        "import",
        "imports",
        Tables("import"),
        "Files of other daemons. Their sequences are sniffed, and work as they do in the other daemon. Two files "
        "cannot have a sequence of the same name.",
        keys=IMPORT_KEYS,
    ),
)
