"""Batches on hosts behind ssh."""
