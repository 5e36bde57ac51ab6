"""Who gets what, at which price, and who shares the gain. Pure: no clock, no Django, no network."""
