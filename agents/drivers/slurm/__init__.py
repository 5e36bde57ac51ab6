"""Jobs on a Slurm cluster. `driver` is the agent's side, `watch` runs on the nodes."""
