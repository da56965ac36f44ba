"""Bad inputs through the command line: where they are prepared, the commands that meet them, and a table by area."""
