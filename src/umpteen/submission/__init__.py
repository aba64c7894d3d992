"""Submits a job: from its settings and tasks to batches that an executor has.

`settings` completes what a job is run with, `plan` says what would run, `submit` has it run by
way of `write`; `read_back` reads a job that was submitted before, and `cancel` ends one. Nothing
here waits for tasks: that is for the verbs.
"""
