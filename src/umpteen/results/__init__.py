"""Results stores: where every file of a job lies, and how it is put there."""
