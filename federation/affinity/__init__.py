"""How fast a job class runs where. Pure: numpy, scipy and the standard library, no Django."""
