"""The results store: where every file of a job lies, and how it is read and written.

Standard library alone, Python 3.9: it travels to machines with the runner. `backends` import
the libraries of their services when a store is opened.
"""
