"""The table of attention variants: one file per group of rooms, one line per variant.

A file here defines ``VARIANTS``, a list made with `numpy_variant` or `torch_variant`, and is found by its presence.
The kernels are left out where there is no Triton, which is made for Linux alone (and pinned there).
"""

import importlib
import importlib.util
import pkgutil

HERE = {each.name for each in pkgutil.iter_modules(__path__)} - (set() if importlib.util.find_spec("triton") else {"kernels"})
VARIANTS = [variant for module in sorted(HERE)
            for variant in importlib.import_module(f"tests.variants.{module}").VARIANTS]
