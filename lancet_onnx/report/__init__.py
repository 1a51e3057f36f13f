# SPDX-License-Identifier: Apache-2.0
"""What a command found, in forms that people and programs read."""

from lancet_onnx.report.attachments import placed
from lancet_onnx.report.html import to_html
from lancet_onnx.report.report import SCHEMA_VERSION, Attachment, Picture, Report

__all__ = ["SCHEMA_VERSION", "Attachment", "Picture", "Report", "placed", "to_html"]
