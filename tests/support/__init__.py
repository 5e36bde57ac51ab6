"""Builders, real servers and fakes that the tests share."""
