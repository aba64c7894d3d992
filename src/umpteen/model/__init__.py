"""The words of a job: what is written to disk and sent to machines, as types.

Standard library alone, Python 3.9: it travels to machines with the runner. Nothing here opens a
file.
"""
