"""Writes: one verb per function, keyword-only, returning facts. Only `broker` enqueues work."""
