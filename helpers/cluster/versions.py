"""What differs between the oldest Kubernetes that the course runs on (1.20) and today's."""

from __future__ import annotations


def flags(part: str, version: tuple[int, int]) -> list[str]:
    """Return the options of a part that only some versions know.

    Args:
        part: ``kube-apiserver``, ``kube-controller-manager`` or ``kube-scheduler``.
        version: such as ``(1, 20)``.
    """
    found = []
    if version < (1, 24) and part != "kube-apiserver":
        found.append("--port=0")  # the way in without a password; gone in 1.24
    if version < (1, 21):
        # Jobs that remove themselves when they are done, and a temporary token for each pod, came
        # as features that one had to ask for.
        gates = {"kube-apiserver": "TTLAfterFinished=true", "kube-controller-manager": ""}
        gates["kube-controller-manager"] = gates["kube-apiserver"]
        if part in gates:
            found.append(f"--feature-gates={gates[part]}")
    return found
