"""Pure rules: no I/O, no clock (``now`` is an argument), no framework."""
