"""Processes, threads, locks and the machine that we are on; nothing of jobs.

Standard library alone, Python 3.9: it travels to machines with the runner.
"""
