# SPDX-License-Identifier: Apache-2.0
"""The architecture corpus: models as people really export them, and what lancet-onnx makes of each.

`build` writes .onnx files and inputs into a cache folder, `check` compares lancet-onnx with
onnxruntime on them, `slice` does both for a small set that touches every operator of the table.

Exporters want versions of their own, so there are up to three environments (exact versions in
the `constraints-*.txt` files beside this one):

    python3.11 -m venv ENV_CORPUS
    ENV_CORPUS/bin/pip install -c tests/parity/corpus/constraints-corpus.txt \
        -r tests/parity/corpus/requirements-corpus.txt -e .
    python3.11 -m venv ENV_KERAS
    ENV_KERAS/bin/pip install -c tests/parity/corpus/constraints-keras.txt \
        tensorflow-cpu keras tf2onnx onnxruntime

    ENV_CORPUS/bin/python tests/parity/corpus.py build --cache DIR
    ENV_KERAS/bin/python tests/parity/corpus.py build --cache DIR --only keras/
    ENV_CORPUS/bin/python tests/parity/corpus.py check --cache DIR --write docs/coverage.md

Building goes on where it stopped; recipes whose packages are missing are left for an environment
that has them.
"""
