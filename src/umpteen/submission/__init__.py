"""Writes a plan into the store and gives its batches to an executor; cancels them there."""
