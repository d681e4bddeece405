"""Run a node: ``python -m helpers.cluster.agent FOLDER NODE``."""

import json
import sys
import threading
from pathlib import Path

from helpers.cluster.agent import node, server


def main() -> None:
    """Look after the pods of one node until the process ends."""
    folder = Path(sys.argv[1])
    settings = node.settings(folder, sys.argv[2])
    cluster = json.loads((folder / "cluster.json").read_text())["name"]
    if settings.rung == "process":
        from helpers.cluster.agent.process_pods import ProcessPods as Pods
    else:
        from helpers.cluster.agent.docker_pods import DockerPods as Pods
    runtime = Pods(folder, cluster, settings)
    one = node.Node(folder, settings, runtime)
    serving = (folder, settings, runtime, one.find)
    threading.Thread(target=server.serve, args=serving, daemon=True).start()
    one.run()


main()
