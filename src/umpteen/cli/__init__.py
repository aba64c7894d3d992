"""The command line: one module per verb, loaded when that verb is called."""
