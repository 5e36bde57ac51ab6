"""The demonstration: three datacenters on one machine that really train and really pay."""
