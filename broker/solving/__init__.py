"""Solving beside the broker: a child process with limits, and work fanned out to other workers.

The worker keeps the database, the child keeps the solvers. Between them run small messages; books
and clearings travel as files.
"""
