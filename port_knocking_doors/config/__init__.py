"""Configuration files and options to checked settings, and back to text. Nothing here may know a running daemon."""
