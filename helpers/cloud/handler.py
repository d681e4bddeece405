"""The process of one call of a Lambda function: ``python -m helpers.cloud.handler MODULE.NAME``.

It runs in the folder of the function's code, reads the event from the file ``.event`` there and
writes the answer to ``.answer``, both in JSON; what it prints is the function's log.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path


class Context:
    """What a handler may ask about its call."""

    def __init__(self) -> None:
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.invoked_function_arn = os.environ.pop("_ARN")
        self.aws_request_id = os.environ.pop("_REQUEST_ID")
        self._end = time.monotonic() + float(os.environ.pop("_TIMEOUT"))
        self.identity = self.client_context = None

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the call may still take."""
        return max(0, int((self._end - time.monotonic()) * 1000))


def main() -> None:
    """Call the handler once."""
    folder = Path.cwd()
    sys.path.insert(0, str(folder))
    module, _, name = sys.argv[1].rpartition(".")
    try:
        _vendor(module)
        handler = getattr(importlib.import_module(module.replace("/", ".")), name)
        event = json.loads((folder / ".event").read_text())
        answer = json.dumps({"answer": handler(event, Context())})
    except BaseException as problem:
        traceback.print_exc()
        trace = traceback.format_tb(problem.__traceback__)[1:]
        kind, text = type(problem).__name__, str(problem)
        error = {"errorMessage": text, "errorType": kind, "stackTrace": trace}
        answer = json.dumps({"error": error})
    (folder / ".answer").write_text(answer)


def _vendor(module: str) -> None:
    """Give botocore the HTTP library that it brought along once, if a function counts on that.

    Many published templates have functions that do.
    """
    source = Path(f"{module}.py")
    if source.exists() and "botocore.vendored" in source.read_text():
        import requests
        from botocore.vendored import requests as vendored

        for name in ("delete", "get", "head", "patch", "post", "put", "request", "Session"):
            setattr(vendored, name, getattr(requests, name))


if __name__ == "__main__":
    main()
