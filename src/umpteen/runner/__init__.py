"""The process on the machine that runs batches and records what happened.

Standard library alone, Python 3.9: it travels to machines. It is started by a command
(`launch`), reads batches from the store and writes records there; it knows no executor.
"""
