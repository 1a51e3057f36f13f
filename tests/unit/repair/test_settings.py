# SPDX-License-Identifier: Apache-2.0
"""A patch's method names every setting: two that differ in one never go by one name."""

from dataclasses import fields, replace

import pytest

from lancet_onnx.repair import Settings


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_every_setting_is_named(name: str):
    usual = Settings()
    value = getattr(usual, name)
    other = {bool: not value, float: 0.123, str: "mute"}[type(value)]
    assert str(replace(usual, **{name: other})) != str(usual)
