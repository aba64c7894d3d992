"""A job in Slurm's queue that submits others, where Slurm does not take all of them at once."""
