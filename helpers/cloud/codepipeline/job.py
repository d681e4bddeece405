"""An action of an execution: its thread, what it is given, and what comes of it."""

from __future__ import annotations

import threading
import traceback
import uuid
from collections.abc import Callable

from botocore.exceptions import ClientError
from moto.core.utils import utcnow

from helpers.cloud.calls import Refusal
from helpers.cloud.codepipeline import variables
from helpers.cloud.services import sts
from helpers.cloud.stacks.api import Caller, Failure

UNRESOLVED = (
    "An action in this pipeline failed because one or more variables could not be resolved: Action "
    "name={action}. This can result when a variable is referenced that does not exist. Validate "
    "the pipeline variables are correct in the action configuration. Not found: {names}"
)


class Failed(Exception):
    """An action fails; the code and the message are its error details."""

    def __init__(self, message: str, code: str = "JobFailed") -> None:
        super().__init__(message)
        self.code = code


class Job:
    """An action of an execution.

    What a provider's function (``actions``) finds out it writes into ``external`` (the execution's
    id, summary and URL in its own service) and ``variables``.
    """

    def __init__(self, execution, stage: str, action: dict) -> None:
        self.id, self.execution, self.pipeline = str(uuid.uuid4()), execution, execution.pipeline
        self.stage, self.action, self.name = stage, action, action["name"]
        self.status, self.error = "InProgress", {}
        self.started = self.updated = utcnow()
        self.configuration: dict[str, str] = {}
        self.environment: dict[str, str] = {}
        self.external: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        self.wanted = execution.wanted.get(self.name, "")  # the revision of a source
        self.token, self.by = "", ""
        self.answered, self.answer = threading.Event(), {}
        self.cancel: Callable[[], object] = lambda: None  # ends what the action has started
        bucket, folder = execution.facts["artifactStore"]["location"], self.pipeline.name[:20]
        names = [one["name"] for one in action["inputArtifacts"]]
        self.inputs = {name: execution.artifacts[name] for name in names}  # bucket and key
        self.outputs = {
            one["name"]: (bucket, f"{folder}/{one['name'][:10]}/{uuid.uuid4().hex[:7]}.zip")
            for one in action["outputArtifacts"]
        }

    @property
    def role(self) -> str:
        """The ARN of the role that the action is done as."""
        return self.action.get("roleArn") or self.execution.facts["roleArn"]

    def seconds(self, limit: int) -> int:
        """Return how long the action may take: what it says itself, or the limit."""
        return int(self.action.get("timeoutInMinutes", 0)) * 60 or limit

    def revised(self, revision: str, summary: str) -> None:
        """Note what a source action has found."""
        self.external = {"externalExecutionId": revision, "externalExecutionSummary": summary}
        about = {"revisionId": revision, "revisionSummary": summary}
        self.execution.revisions[self.name] = about

    def go(self) -> None:
        """Start the action."""
        self.started = self.updated = utcnow()
        self.pipeline.jobs.append(self)
        self._tell("STARTED")
        threading.Thread(target=self._run, daemon=True).start()

    def caller(self) -> Caller:
        """Return the API in the name of the pipeline's role, or of the action's, with new keys."""
        role, own = self.execution.facts["roleArn"], self.action.get("roleArn")
        call = Caller(*sts.assume(role, "codepipeline"), self.pipeline.region)
        if not own:
            return call
        keys = call("sts", "AssumeRole", {"RoleArn": own, "RoleSessionName": self.id})
        keys = [keys["Credentials"][n] for n in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
        return Caller(*keys, self.pipeline.region)

    def settle(self, status: str, error: dict | None = None) -> None:
        """Note how the action has ended, unless it was abandoned before."""
        with self.pipeline.changed:
            if self.status != "InProgress":
                return
            self.status, self.error, self.updated = status, error or {}, utcnow()
            if status == "Succeeded":
                self.execution.artifacts |= self.outputs
                if space := self.action.get("namespace"):
                    self.execution.outputs[space] = self.variables
            self.answered.set()
            self._tell(status.upper())
            self.pipeline.changed.notify_all()

    def _run(self) -> None:
        from helpers.cloud.codepipeline import actions

        try:
            known = self.execution.known()
            self.configuration = variables.resolve(self.action["configuration"], known)
            pairs = self.action.get("environmentVariables", ())
            given = {one["name"]: one["value"] for one in pairs}
            self.environment = variables.resolve(given, known)
            actions.find(self.action["actionTypeId"]).run(self, self.caller())
            self.settle("Succeeded")
            return
        except variables.Unresolved as problem:
            text = UNRESOLVED.format(action=self.name, names=problem)
            error = {"code": "ConfigurationError", "message": text}
        except Failed as problem:
            error = {"code": problem.code, "message": str(problem)}
        except ClientError as problem:
            error = explained(problem)
        except (Refusal, Failure, NotImplementedError) as problem:
            error = {"code": "JobFailed", "message": str(problem)}
            if "not authorized" in str(problem):
                error["code"] = "PermissionError"
        except Exception as problem:  # a fault of ours
            traceback.print_exc()
            error = {"code": "InternalError", "message": repr(problem)}
        self.settle("Failed", error)

    def _tell(self, state: str) -> None:
        about = {"stage": self.stage, "action": self.name, "type": self.action["actionTypeId"]}
        self.execution.tell(state, "Action", **about)


def explained(problem: ClientError) -> dict[str, str]:
    """Return an error of a service as the details of a failed action."""
    error, answer = problem.response["Error"], problem.response["ResponseMetadata"]
    text = (
        f"{error.get('Message', '')} (Operation: {problem.operation_name}; Status Code: "
        f"{answer.get('HTTPStatusCode')}; Error Code: {error['Code']}; Request ID: "
        f"{answer.get('RequestId', '-')})"
    )
    denied = "AccessDenied" in error["Code"] or "not authorized" in text
    return {"code": "PermissionError" if denied else "JobFailed", "message": text}
