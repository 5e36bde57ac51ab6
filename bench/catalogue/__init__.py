"""Models of the catalogue's class families, written out here so that every site runs the same."""
