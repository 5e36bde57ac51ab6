"""Which way to split a model over GPUs: memory, step time, and what it costs at every pool.

Dense transformers trained in mixed precision with Adam. `planning.plans` ranks every split over a
given number of GPUs of one pool, `choosing.choose` weighs pools against each other,
`synchronisation.synchronise` decides how a job's variables are kept alike, and
`environment.launch_environment` hands a plan to the launched command.
"""
