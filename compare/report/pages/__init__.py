"""A page for each command, drawn from its record alone with the kit of compare/report."""
