"""Jobs as pods of a Kubernetes cluster, through its API server alone."""
