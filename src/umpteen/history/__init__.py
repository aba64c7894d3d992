"""What the files of a job say of each of its tasks, read back and folded together.

It only reads. Which task runs now, which is for executors to say, is in `query`.
"""
