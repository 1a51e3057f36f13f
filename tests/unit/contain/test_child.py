# SPDX-License-Identifier: Apache-2.0
"""What the process that runs a model says of its failures."""

import pytest

from lancet_onnx.contain.child import _failure


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "machine"),
        (MemoryError(), "machine"),
        (RuntimeError("CUDA out of memory"), "card"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_failure_for_want_of_memory_is_no_bug(error: Exception, where: str):
    assert _failure(error) == {"no_memory": where}


def test_another_failure_is_told_as_it_is():
    told = _failure(ImportError("no module"))["error"]
    assert isinstance(told, dict)
    assert (told["type"], told["known"], told["text"]) == ("ImportError", False, "no module")
