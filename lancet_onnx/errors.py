# SPDX-License-Identifier: Apache-2.0
"""What can go wrong for a user, as a small tree of exceptions.

Each message says what was found, where, what was expected and what to do next. A `LancetError`
is the user's to mend and is shown without a traceback; anything else is a bug in lancet-onnx.
"""

from lancet_onnx.rules import Rule


class LancetError(Exception):
    """Base of everything a user can mend; ends a command with exit code 3."""


class UsageError(LancetError):
    """The call itself is wrong (an option, a combination of options); exit code 2."""


class ModelError(LancetError):
    """The model file is missing, damaged, hostile or of a kind that is not handled.

    Attributes:
        text: the message without the rule.
        rule: what the model breaks, if it is one of the rules; the message ends with its name.
    """

    def __init__(self, message: str, rule: Rule | None = None) -> None:
        """Say what was found and which rule that breaks."""
        super().__init__(f"{message} [{rule.id}]" if rule else message)
        self.text = message
        self.rule = rule


class UnsupportedError(ModelError):
    """The model needs an operator, type or structure that lancet-onnx does not compute."""


class LimitError(ModelError):
    """Running the model took more memory or time than it may, or ended the process that ran it."""


class DataError(LancetError):
    """Images, labels, a trigger picture or the preprocessing cannot be used."""


class PatchError(LancetError):
    """A patch does not belong to the file it is applied to, or is damaged."""


class OutputError(LancetError):
    """A result cannot be written where it was asked for."""


class DeviceError(LancetError):
    """A device was asked for that is not there or would not be used."""
