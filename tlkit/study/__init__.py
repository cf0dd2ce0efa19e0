"""Studies: what a table of runs says, and how sure it is."""
