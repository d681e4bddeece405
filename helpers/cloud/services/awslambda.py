"""Lambda: functions in Python really run, each call in a process of its own, as their role."""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
from pathlib import Path

from moto.awslambda import urls
from moto.awslambda.models import LambdaBackend, LambdaFunction, lambda_backends

from helpers import ledger
from helpers.cloud import environment
from helpers.cloud.calls import Refusal
from helpers.cloud.services import sts


class Backend(LambdaBackend):
    """moto's Lambda, whose calls are made in Docker, with calls in processes instead."""

    _url_module = urls

    def create_function(self, spec: dict) -> LambdaFunction:
        """Make a function in Python from a ZIP file; there are no others here."""
        if spec.get("PackageType", "Zip") != "Zip":
            raise NotImplementedError("functions from container images")
        if not str(spec.get("Runtime")).startswith("python3"):
            raise NotImplementedError(f"the runtime {spec.get('Runtime')}: functions are in Python")
        sts.assume(spec["Role"], "lambda")
        return super().create_function(spec)

    def invoke(self, function_name, qualifier, body, headers, response_headers):
        """Call a function; an Event does not wait for the answer."""
        function = self.get_function(function_name, qualifier)
        kind = headers.get("X-Amz-Invocation-Type") or "RequestResponse"
        try:
            event = json.loads(body or "{}")
        except ValueError:
            text = "Could not parse request body into json: Could not parse payload into json"
            raise Refusal("InvalidRequestContentException", text) from None
        if kind == "DryRun":
            return b""
        if kind == "Event":
            threading.Thread(target=_call, args=(function, event), daemon=True).start()
            return b""
        answer, failed, log = _call(function, event)
        if failed:
            response_headers["x-amz-function-error"] = failed
        response_headers["x-amz-log-result"] = base64.b64encode(log[-4096:].encode()).decode()
        response_headers["x-amz-executed-version"] = str(function.version)
        return json.dumps(answer).encode()


def _call(function: LambdaFunction, event) -> tuple[object, str, str]:
    """Run a function once; return its answer, ``Unhandled`` if it failed, and its log."""
    request, begin = str(uuid.uuid4()), time.time()
    stream = time.strftime("%Y/%m/%d/[$LATEST]", time.gmtime()) + secrets.token_hex(16)
    folder = Path(tempfile.mkdtemp(prefix="lambda-", dir=environment.folder()))
    try:
        with zipfile.ZipFile(io.BytesIO(function.code_bytes)) as archive:
            archive.extractall(folder)
        (folder / ".event").write_text(json.dumps(event))
        answer = _run(function, folder, request, stream)
        text = (folder / ".log").read_text(errors="replace")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    spent = (time.time() - begin) * 1000
    log = [f"START RequestId: {request} Version: {function.version}", *text.splitlines()]
    if "problem" in answer:
        log.append(answer["problem"]["errorMessage"])
    log.append(f"END RequestId: {request}")
    log.append(f"REPORT RequestId: {request}\tDuration: {spent:.2f} ms")
    _write(function, stream, begin, log)
    if "answer" in answer:
        return answer["answer"], "", "\n".join(log)
    return answer.get("problem") or answer["error"], "Unhandled", "\n".join(log)


def _run(function: LambdaFunction, folder: Path, request: str, stream: str) -> dict:
    """Run the process of a call; return its ``answer`` or ``error``, or what ended it early."""
    key, secret, token = sts.assume(function.role, "lambda")
    variables = environment.without_aws(os.environ)
    variables |= environment.local(os.environ["AWS_ENDPOINT_URL"])
    variables |= {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), str(folder)]),
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_SESSION_TOKEN": token,
        "AWS_REGION": function.region,
        "AWS_DEFAULT_REGION": function.region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.run_time}",
        "AWS_LAMBDA_FUNCTION_NAME": function.function_name,
        "AWS_LAMBDA_FUNCTION_VERSION": str(function.version),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
        "AWS_LAMBDA_LOG_GROUP_NAME": function.logs_group_name,
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        "LAMBDA_TASK_ROOT": str(folder),
        "_ARN": function.function_arn,
        "_REQUEST_ID": request,
        "_TIMEOUT": str(function.timeout),
    }
    variables |= {name: str(value) for name, value in function.environment_vars.items()}
    limit = int(function.timeout)
    process, entry = ledger.spawn(
        f"Lambda function {function.function_name}",
        [sys.executable, "-m", "helpers.cloud.handler", function.handler],
        env=variables,
        log=folder / ".log",
        cwd=folder,
    )
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        kind, text = "Sandbox.Timedout", f"{request} Task timed out after {limit}.00 seconds"
        return {"problem": {"errorType": kind, "errorMessage": text}}
    finally:
        ledger.stop(entry, patience=1)
        process.wait()
    if (folder / ".answer").exists():
        return json.loads((folder / ".answer").read_text())
    text = f"Error: Runtime exited with error: exit status {process.returncode}"
    text = f"RequestId: {request} {text}"
    return {"problem": {"errorType": "Runtime.ExitError", "errorMessage": text}}


def _write(function: LambdaFunction, stream: str, begin: float, lines: list[str]) -> None:
    """Write a call's log where CloudWatch Logs has it."""
    logs, group = function.logs_backend, function.logs_group_name
    logs.ensure_log_group(group)
    logs.create_log_stream(group, stream)
    events = [{"timestamp": int(begin * 1000), "message": line} for line in lines if line]
    logs.put_log_events(group, stream, events)


lambda_backends.backend = Backend
