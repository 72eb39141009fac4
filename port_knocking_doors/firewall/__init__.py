"""firewalld: zones, rules, and the loop that makes the active rules equal to the desired ones.

Modules here know doors and owners of rules, and must not know knocks or sequences.
"""
