"""Services that are wholly ours: their backend has a method for each operation."""

from __future__ import annotations

from botocore import xform_name
from moto.backends import get_backend
from moto.core.responses import ActionResult, BaseResponse
from moto.core.utils import get_service_model

from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import sts


class Response(BaseResponse):
    """Reads the parameters of a call, and has the backend's method of its name answer it.

    A method takes the parameters, with the caller's ARN as ``caller``, and returns AWS's answer.

    Attributes:
        service: its name, for AWS and for moto.
        missing: part of the names of operations that it does not have, and why.
    """

    service = ""
    missing: dict[str, str] = {}

    def __init__(self) -> None:
        super().__init__(service_name=self.service)

    def call_action(self):
        """Answer a call, if it is an operation of AWS: nothing else of a backend can be called."""
        operation = self._get_action()
        if operation not in get_service_model(self.service).operation_names:
            raise NotImplementedError("AWS has no such operation")
        self.parse_parameters(self.normalized_request)
        asked = self.params | {"caller": self.caller()}
        return self.serialized(ActionResult(self.answer(operation, asked)))

    def answer(self, operation: str, asked: dict) -> dict:
        """Have the backend answer."""
        method = getattr(self.backend, xform_name(operation), None)
        if not method:
            why = (reason for part, reason in self.missing.items() if part in operation)
            raise NotImplementedError("".join(why))
        return method(asked)

    def caller(self) -> str:
        """Return the ARN of who calls."""
        return sts.caller(self.get_access_key())[0]

    @property
    def backend(self):
        """What there is in the region that was asked."""
        return get_backend(self.service)[ACCOUNT][self.region]
