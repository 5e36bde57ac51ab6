"""How fast a job class runs where. Pure: numpy, scipy, threadpoolctl and the standard library."""
