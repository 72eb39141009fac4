"""Requests to a running daemon and its answers; no decision about a knock or a door."""
