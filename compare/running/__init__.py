"""How work is carried out on this machine: worker processes, programs with a time limit, folders, locks, what is kept."""
