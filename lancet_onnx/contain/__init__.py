# SPDX-License-Identifier: Apache-2.0
"""One call of the library in a child process with limits, so that no model can take the machine.

What goes in and comes out is JSON: a child that a hostile model took over can lie about the model,
but it cannot make its parent run anything.
"""

from lancet_onnx.contain.limits import Limits, default_limits
from lancet_onnx.contain.parent import ChildError, contained

__all__ = ["ChildError", "Limits", "contained", "default_limits"]
