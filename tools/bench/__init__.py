"""`make bench`: speed and memory of the library, measured, printed as tables and recorded in chapters/data/bench-*.json."""
