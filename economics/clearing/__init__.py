"""The welfare programmes: who trains where. Prices come after, from `economics.pricing`."""
