"""What coalitions of sites could do alone, and the transfers that keep everybody in."""
