"""Hanse's site agent: pulls leases, runs jobs through a local driver, reports what was measured.

Installs and runs without Django, numpy, cvxpy or the broker.
"""
