"""The running service: everything a process or a person talks to."""
