"""The book's figures: each one is a function that takes arrays and returns the figure.

`style` holds the house style and the shapes every chapter shares; each other file holds the figures
of one chapter, which imports it as ``from attnlib.plots import softmax as plots``. Nothing is imported here, so that
a change to one chapter's figures concerns no other chapter.
"""
