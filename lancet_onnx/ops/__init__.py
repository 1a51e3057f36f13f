# SPDX-License-Identifier: Apache-2.0
"""ONNX operators as plain, differentiable torch functions, looked up by exact version.

One family a module; importing a module fills the table, so each module here is imported.
"""

from importlib import import_module
from pkgutil import iter_modules

from lancet_onnx.ops.registry import Operator, OpKey, OpResult, lookup, table

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["OpKey", "OpResult", "Operator", "lookup", "table"]
