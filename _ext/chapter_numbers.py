"""A chapter's number is the one in its file's name: chapters/14_complexity is chapter 14, also while parts before it are unwritten."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment.collectors.toctree import TocTreeCollector

CHAPTER = re.compile(r"chapters/(\d+)_")


def numbered_by_name(assign):
    """Wrap Sphinx's numbering: count sections as before, then put the file's number in the first place."""
    def assign_section_numbers(self, env):
        changed = assign(self, env)
        for docname, numbers in env.toc_secnumbers.items():
            if found := CHAPTER.match(docname):
                number = int(found[1])
                for anchor, old in numbers.items():
                    numbers[anchor] = old and (number, *old[1:])
                for node in (env.titles[docname], *env.tocs[docname].findall(nodes.reference)):
                    if node.get("secnumber"):
                        node["secnumber"] = [number, *node["secnumber"][1:]]
        return changed

    return assign_section_numbers


def install(app: Sphinx) -> None:
    """Wrap what is there once all extensions are loaded: jupyter-book's collector is a subclass of Sphinx's."""
    for collector in TocTreeCollector.__subclasses__() or [TocTreeCollector]:
        collector.assign_section_numbers = numbered_by_name(collector.assign_section_numbers)


def setup(app: Sphinx) -> dict:
    """Register."""
    app.connect("builder-inited", install)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
