"""Ways to run a job at a site. `base` is the contract, one module per local scheduler."""
