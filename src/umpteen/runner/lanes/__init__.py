"""The processes of the runner that start tasks: a lane has a few slots and a pipe to the runner."""
