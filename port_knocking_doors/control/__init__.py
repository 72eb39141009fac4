"""What a running daemon is asked and answers; nothing here decides about a knock or a door."""
