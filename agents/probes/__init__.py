"""What the site has and how fast it is: `capacity` counts, `throughput` measures."""
