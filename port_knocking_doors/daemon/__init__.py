"""The running daemon, which wires the other folders together; no logic of one of them belongs here."""
