"""The agents' side of the broker: REST v1 of the wire in `agents.protocol`."""
