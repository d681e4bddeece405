"""The local AWS: moto's server in a process of its own, and the services that really run.

To make a service real, or truer than moto has it, put a module into ``services/`` with the name of
moto's package (``ec2``, ``awslambda``). It is imported after that package and before the first
use of the service (``extensions``), and there

- sets ``ec2_backends.backend`` to its own subclass of moto's backend, whose ``_url_module`` has
  ``url_bases`` and ``url_paths`` (``moto.ec2.urls``, or its own paths to its own Response class);
- registers CloudFormation types by subclassing ``CloudFormationModel``;
- raises ``calls.Refusal(code, message, status)`` for what AWS refuses; the client gets it in the
  format of its protocol, as it gets ``NotImplementedError`` and every other exception;
- starts processes and machines through the ledger: they end with the cloud.

``services/sts.py`` is the smallest example. What has to look at every call before moto does (may
this identity do that?) is a function added to ``calls.CHECKS`` in ``server.py``.
"""

from helpers.cloud.local import Cloud, CloudError, running, start, use

__all__ = ["Cloud", "CloudError", "running", "start", "use"]
