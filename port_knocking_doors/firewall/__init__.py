"""firewalld: zones, rich rules, and the loop that makes the rules equal to the wanted ones; no knock belongs here."""
