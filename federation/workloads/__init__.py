"""How each kind of work becomes a demand. Pure: no Django."""
