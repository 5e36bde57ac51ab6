"""The driver for Ray: jobs through the REST API of a Ray head, guarded by ourselves on the node."""
