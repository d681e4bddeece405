# Read by JupyterLab through JUPYTER_CONFIG_PATH: its terminals get the lab's environment, so that
# docker, aws and kubectl reach the same things there as in the notebooks.
import os
from pathlib import Path

from helpers import guard

# AWS commands in notebooks and terminals stay on this machine from the start (helpers/guard.py).
os.environ.setdefault("LAB_AWS", "local")
guard.everywhere()

c = get_config()
c.ServerApp.terminado_settings = {
    "shell_command": ["bash", "--rcfile", str(Path(__file__).with_name("terminal.bashrc"))]
}
# The proxy leads a browser to servers on this machine's loopback only.
c.ServerProxy.host_allowlist = lambda handler, host: guard.loopback(host)
