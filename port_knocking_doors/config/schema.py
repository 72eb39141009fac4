"""What the project's own configuration file may hold: the one declaration that validates, writes and explains it."""

from dataclasses import dataclass, field

from port_knocking_doors.config import readers
from port_knocking_doors.config.reader_types import Reader, Seconds, Tables, Whole
from port_knocking_doors.model import Access, CommandOpening, Flags, Port, Protocol, Sequence, Step

RULES_MAX = 65536
"""How many firewall rules the doors may need at most: open doors times the ports of one."""

EXAMPLE_STEPS = (
    Step(Protocol.UDP, 1234),
    Step(Protocol.TCP, 543, Flags.SYN),
    Step(Protocol.TCP, 123, Flags.FIN | Flags.RST | Flags.PSH | Flags.ACK),
)
"""The documentation's example of a sniffed sequence, and so known to everybody."""


@dataclass(frozen=True)
class Key:
    """One key of a table: its name there, the field that it fills, who reads it, and what people should know of it."""

    name: str
    field: str
    read: Reader
    about: str
    required: bool = False
    needs: str = ""
    """Another key of the table, without which this one means nothing."""
    keys: tuple["Key", ...] = ()
    """Where the value is a list of tables, what each of them may hold."""


@dataclass(frozen=True)
class Entry:
    """A `[[sequence]]` as it stands in the file: a field for each key; None for what is not there."""

    name: str
    steps: tuple[Step, ...] = field(repr=False)
    timeout: float = 10.0
    traps: int = 512
    open: tuple[Port, ...] | None = None
    duration: float = 30.0
    start_command: str | None = None
    stop_command: str | None = None
    command_delay: float = 30.0

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
        )


SEQUENCE_KEYS = (
    Key(
        "name",
        "name",
        readers.sequence_name,
        "What the log calls the sequence. No two have the same name, and none is called "
        f"{readers.RESERVED_NAME}, which is the opening sequence.",
        required=True,
    ),
    Key(
        "steps",
        "steps",
        readers.knock_steps,
        "The secret: one packet each, in this order. FLAGS are the letters of what is set in the packet, and nothing "
        "else may be: f FIN, s SYN, r RST, p PSH, a ACK, u URG; or alone x for all of them, n for none. Without FLAGS "
        "a bare SYN, which is what any attempt to connect begins with. Three steps or more, in no order that one would "
        "guess, on ports that nobody serves.",
        required=True,
    ),
    Key(
        "timeout",
        "timeout",
        readers.seconds,
        "The longest time from the first knock to the last. Then the knocker starts anew.",
    ),
    Key(
        "traps",
        "traps",
        readers.traps,
        "How many ports of each protocol are traps, chosen by the daemon where nobody serves and no step is. Who hits "
        "one between two steps has knocked wrongly: without traps, a scan of all ports may open the door.",
    ),
    Key(
        "open",
        "open",
        readers.guarded_ports,
        "What a door opens, for the one address that knocked. Either this or start_command must be there, or both.",
    ),
    Key(
        "duration",
        "duration",
        readers.seconds,
        "The door closes after so long. The whole sequence once more prolongs it.",
        needs="open",
    ),
    Key(
        "start_command",
        "start_command",
        readers.shell_command,
        "What runs when the sequence is complete. %IP% is the knocker's address.",
    ),
    Key(
        "stop_command",
        "stop_command",
        readers.shell_command,
        "What runs afterwards, to undo start_command. %IP% is the knocker's address.",
        needs="start_command",
    ),
    Key(
        "command_delay",
        "command_delay",
        Seconds(low=0),
        "The time from the end of start_command to stop_command.",
        needs="stop_command",
    ),
)

IMPORT_KEYS = (
    Key("format", "dialect", readers.foreign_format, "Whose file it is.", required=True),
    Key(
        "path",
        "path",
        readers.file_path,
        "The file. It is read as it is, and only read; what is wrong with it is told with its own name and line.",
        required=True,
    ),
    Key(
        "traps",
        "traps",
        readers.traps,
        "As in a [[sequence]], for each of the file's. The other daemons have none.",
    ),
)

KEYS = (
    Key(
        "ports_to_controls",
        "guarded_ports",
        readers.guarded_ports,
        "What a door opens, for the one address that knocked. A port is TCP unless it says otherwise. The daemon "
        "only ever opens: that these ports are closed to everybody else is up to the zone, so take their services "
        "out of it.",
        required=True,
    ),
    Key(
        "opening_sequence",
        "opening_sequence",
        readers.sequence,
        "The secret: UDP ports in the order of their knocks. A knock is one datagram of six bytes, the word knock "
        "and a newline. "
        "The documentation's example is known to everybody: choose your own, in no order that one would guess.",
        required=True,
    ),
    Key(
        "firewall_rules_check_periode_seconds",
        "rule_check_period",
        readers.seconds,
        "How often the rules in firewalld are compared with those that ought to be there, and put right.",
    ),
    Key(
        "ignoring_period_after_knock_error",
        "ignoring_period",
        readers.seconds,
        "A knocker that erred is not heard for so long. Its knocks meanwhile change nothing; afterwards it starts "
        "anew.",
    ),
    Key(
        "max_knocker_live_time",
        "knocker_lifetime",
        readers.seconds,
        "The longest pause between two knocks. A knocker not heard for so long starts anew.",
    ),
    Key(
        "max_opened_door_duration",
        "door_duration",
        readers.seconds,
        "A door closes after so long. The whole sequence once more prolongs it. Connections that stand when it "
        "closes go on.",
    ),
    Key(
        "doors_cleanup_periode",
        "doors_cleanup_period",
        readers.seconds,
        "Kept for files of version 1. Doors close at their deadline, and at the latest so long after it.",
    ),
    Key(
        "zone",
        "zone",
        readers.zone_name,
        "The firewalld zone that doors open in. Empty: the zone of the knocker's source address, else the zone of the "
        "interface that the knock came in by, else the default zone.",
    ),
    Key(
        "open_knock_ports",
        "open_knock_ports",
        readers.flag,
        "Whether the daemon lets the knock ports through the zone while it runs. With false, open them yourself, or no "
        "knock arrives.",
    ),
    Key(
        "max_knockers",
        "max_knockers",
        Whole(1, 2**20),
        "How many knockers are remembered at once. In a flood, whoever has come least far is forgotten first.",
    ),
    Key(
        "max_open_doors",
        "max_open_doors",
        Whole(1, RULES_MAX),
        "How many doors may be open at once. Beyond that a newcomer is refused; nobody's door is closed for it. "
        f"Doors times guarded ports may be {RULES_MAX} at most.",
    ),
    Key(
        "rule_priority",
        "rule_priority",
        readers.rule_priority,
        "The mark by which the daemon knows its own rules in firewalld. A second daemon on the same machine needs "
        "another one. Above 0, so that the zone's own denials win.",
    ),
    Key(
        "sequence",
        "sequences",
        Tables("sequence"),
        "Sequences that are sniffed: their ports are closed and look closed. They are heard on every interface, or on "
        "those that --interface names. No sequence may begin with the whole of another one, and the opening sequence, "
        f"which is called {readers.RESERVED_NAME}, is one of them; what is imported is free to.",
        keys=SEQUENCE_KEYS,
    ),
    Key(
        "import",
        "imports",
        Tables("import"),
        "Files of other daemons, whose sequences are sniffed, too, and work as they do there. No sequence of such a "
        "file has the name of one of another file.",
        keys=IMPORT_KEYS,
    ),
)
