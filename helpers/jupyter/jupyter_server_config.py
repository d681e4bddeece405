# Read by JupyterLab through JUPYTER_CONFIG_PATH: its terminals get the lab's environment, so that
# docker, aws and kubectl reach the same things there as in the notebooks.
import ipaddress
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


def loopback(handler, host: str) -> bool:
    """Say whether the proxy may lead a browser there: to servers on this machine's loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


c.ServerProxy.host_allowlist = loopback
