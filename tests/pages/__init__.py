"""Helpers of the site's tests: building the book, visiting its pages, following its links."""
