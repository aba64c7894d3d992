"""What a user submits: a name, settings, tasks and what they are after.

Plain values, checked when they are made; how they are written in files is in `formats`.
"""
