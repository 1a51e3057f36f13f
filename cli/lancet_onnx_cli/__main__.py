# SPDX-License-Identifier: Apache-2.0
"""``python -m lancet_onnx_cli``."""

from lancet_onnx_cli.app import main

if __name__ == "__main__":
    main()
