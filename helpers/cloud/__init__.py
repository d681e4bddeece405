"""The local AWS: moto's server in a process of its own, and the services that really run.

To make a service real, or truer than moto has it, put a module into ``services/`` with the name of
moto's package (``ec2``, ``awslambda``). It is imported after that package and before the first
use of the service (``extensions``), and there

- sets ``ec2_backends.backend`` to its own subclass of moto's backend, whose ``_url_module`` has
  ``url_bases`` and ``url_paths`` (``moto.ec2.urls``, or paths to its own Response class; that
  of a service of which nothing is moto's is an ``operations.Response``);
- appends to ``calls.CHECKS`` what has to look at a call before moto does;
- raises ``calls.Refusal(code, message, status)`` for what AWS refuses, and ``NotImplementedError``
  for what the course does not have: both are answered in the format of the service's protocol;
- answers what is no call of AWS at an address of its own (``calls.DOORS``);
- starts processes and machines through the ledger: they end when the cloud does.

CloudFormation calls the same API as a learner does: a new type of resource is a row in
``stacks/types.py``.

``services/s3.py`` is an example. A check gets a ``calls.Call``, whose key has proved to
be the caller's (``signatures``) and whose policies allow it (``permissions``); ``policies.verdict``
reads policies, ``sts.caller`` says who it is, and ``sts.assume`` lets a service be a role.
"""

from helpers.cloud.costs import bill
from helpers.cloud.local import Cloud, CloudError, contents, running, start, use
from helpers.cloud.recorder import recorded
from helpers.cloud.watch import watch

__all__ = [
    "Cloud",
    "CloudError",
    "bill",
    "contents",
    "recorded",
    "running",
    "start",
    "use",
    "watch",
]
