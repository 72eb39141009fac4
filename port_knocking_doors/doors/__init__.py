"""Which doors are open until when, and what opens and closes them; no packet and no D-Bus call belongs here."""
