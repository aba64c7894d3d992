"""Decides which tasks run, and in which batches: a job and its history in, a plan out."""
