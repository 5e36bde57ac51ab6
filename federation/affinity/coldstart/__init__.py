"""How fast a class runs where it never ran: catalogue, kin, operators, and their blend. Pure."""
