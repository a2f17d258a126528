"""A recipe as SLURM array jobs: its tasks, their scripts, submitting what is missing, and what became of it."""
