# SPDX-License-Identifier: Apache-2.0
"""What onnxruntime says of a file: rates with counts and intervals, and the verdict they allow."""
