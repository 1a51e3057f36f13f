# SPDX-License-Identifier: Apache-2.0
"""What a command found, in forms that people and programs read."""

from lancet_onnx.report.annotations import to_annotations
from lancet_onnx.report.attachments import placed
from lancet_onnx.report.html import to_html
from lancet_onnx.report.junit import to_junit
from lancet_onnx.report.markdown import to_markdown
from lancet_onnx.report.places import Checkout
from lancet_onnx.report.report import SCHEMA_VERSION, Attachment, Picture, Report
from lancet_onnx.report.results import Result, results
from lancet_onnx.report.sarif import to_sarif

__all__ = [
    "SCHEMA_VERSION",
    "Attachment",
    "Checkout",
    "Picture",
    "Report",
    "Result",
    "placed",
    "results",
    "to_annotations",
    "to_html",
    "to_junit",
    "to_markdown",
    "to_sarif",
]
