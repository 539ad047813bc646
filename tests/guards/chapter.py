"""All guards that concern one chapter, in the order in which their findings are best read."""

from __future__ import annotations

from collections.abc import Callable

from tests.guards import Finding, cells, hygiene, reading, script, sync, twins
from tools.chapters import Chapter

READING: list[Callable[[Chapter], list[Finding]]] = [
    cells.parses, cells.lengths, cells.names, cells.exercises, cells.predictions, cells.sources,
    reading.time, reading.abilities,
    hygiene.downloads, hygiene.quiet, hygiene.seeded, hygiene.torch_aside,
    twins.twins,
    sync.compared, sync.in_sync, sync.executed, sync.refused, sync.clean, sync.figures,
]
RUNNING: list[Callable[[Chapter], list[Finding]]] = [script.runs_as_script]
