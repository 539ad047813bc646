"""The scripts behind make: the environment, the notebooks, the site, the tests."""
