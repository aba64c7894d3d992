"""Bundles: jobs for Slurm that are kept in a file, to be submitted together, as often as wanted."""
