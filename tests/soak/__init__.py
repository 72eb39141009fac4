"""The soak and fault test: random knocks and random faults against a real daemon, judged by a slow model of it."""
