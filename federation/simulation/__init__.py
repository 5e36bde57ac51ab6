"""The federation in virtual time. Pure: no Django."""
