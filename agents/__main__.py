"""`python -m agents …` is `hanse agent …`."""

from agents.cli import app

app()
