# SPDX-License-Identifier: Apache-2.0
"""Loads the library once, then forks for every command line that stdin asks for; see `Warm`."""

import json
import os
import sys
import traceback

import lancet_onnx_cli.demo_run
import lancet_onnx_cli.policy_file  # noqa: F401 - loaded for the forks
import rich.progress  # noqa: F401 - loaded for the forks
from lancet_onnx_cli.app import main

import lancet_onnx.api  # noqa: F401 - loaded for the forks


def run(job: dict) -> int:
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    for number, name in enumerate(["/dev/null", *job["streams"]]):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.argv = ["lancet-onnx", *job["args"]]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
        return 99
    return 0


def serve() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = run(json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
