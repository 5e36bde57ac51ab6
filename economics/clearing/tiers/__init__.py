"""The fast path: bid tiers. Jobs that differ only in their bid are one curve, not one row each.

Jobs of a group have the same lines (one for each way to serve them); the best line at given prices
is an upper envelope in the bid. Cutting the group's bids where the envelope bends gives a small
programme whose optimum is that of all jobs, and its distance from it is known at every step.
"""
