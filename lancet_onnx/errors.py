# SPDX-License-Identifier: Apache-2.0
"""What can go wrong for a user, as a small tree of exceptions.

Each message says what was found, where, what was expected and what to do next. A `LancetError`
is the user's to mend and is shown without a traceback; anything else is a bug in lancet-onnx.
"""


class LancetError(Exception):
    """Base of everything a user can mend; ends a command with exit code 3."""


class UsageError(LancetError):
    """The call itself is wrong (an option, a combination of options); exit code 2."""


class ModelError(LancetError):
    """The model file is missing, damaged, hostile or of a kind that is not handled."""


class UnsupportedError(ModelError):
    """The model needs an operator, type or structure that lancet-onnx does not compute."""


class DataError(LancetError):
    """Images, labels, a trigger picture or the preprocessing cannot be used."""


class PatchError(LancetError):
    """A patch does not belong to the file it is applied to, or is damaged."""


class OutputError(LancetError):
    """A result cannot be written where it was asked for."""


class DeviceError(LancetError):
    """A device was asked for that is not there or would not be used."""
