"""How fast a job class runs where. Pure: numpy and the standard library, no Django."""
