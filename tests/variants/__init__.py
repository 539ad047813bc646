"""The table of attention variants: one file per group of rooms, one line per variant.

A file here defines ``VARIANTS``, a list made with `numpy_variant` or `torch_variant`, and is found by its presence.
"""

import importlib
import pkgutil

VARIANTS = [variant for module in sorted(each.name for each in pkgutil.iter_modules(__path__))
            for variant in importlib.import_module(f"tests.variants.{module}").VARIANTS]
