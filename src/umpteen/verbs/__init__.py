"""What the verbs of the command line and of the Python interface do: a file for each verb.

A verb gathers what the store and the executors say, decides in functions that touch nothing, and
acts. It prints nothing and reads no flags: those are the command line's.
"""
