"""Pure matching of what was received against what is expected; no I/O, no clock and no log belong here."""
