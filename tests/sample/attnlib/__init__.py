"""A library in miniature, for the tests of the guards."""
