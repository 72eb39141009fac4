"""Text to checked settings and back; nothing here knows a running daemon."""
