"""An EC2 instance that runs: moto keeps its record, a virtual machine of ours is what it tells of.

The guests' network is user-mode networking. What an instance reaches is the local cloud, at the
address that the learner has for it, so that a signed URL of S3 is good in both places. It reaches
neither other instances nor the Internet, a private address is only a number, and there is no
instance metadata at 169.254.169.254. What an instance writes goes to a disk of its own, over the
image's files. ``ec2-user`` is the root user under another name.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import gzip
import ipaddress
import os
import shlex
import sys
import threading
from pathlib import Path

import psutil
from moto.ec2.models import instances
from moto.ec2.models.instance_types import INSTANCE_TYPES

from helpers import ledger, machine, vm
from helpers.cloud import environment, relay
from helpers.cloud.calls import Refusal
from helpers.vm import kernel

CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
LEARNER = ipaddress.ip_address("127.0.0.1")  # where the learner's browser and curl come from
MOST_PORTS = 64  # that one rule may open: each is a listening socket on this machine
LEAST_MEMORY = 256  # MB
DISK_MB = 8192

USER_DATA = "var/lib/cloud/user-data"
KEYS = "home/ec2-user/.ssh/authorized_keys"
START = """
mkdir -p /etc/dropbear /var/log
[ -x /usr/sbin/dropbear ] && [ -s /{keys} ] && /usr/sbin/dropbear -R -s
busybox nc -ll -p {port} -e busybox nc 10.0.2.100 1 &
[ -e /var/lib/cloud/booted ] && exit
touch /var/lib/cloud/booted
cd /root
{{ {run}; }} 2>&1 | tee /var/log/cloud-init-output.log
"""
RUN = '/{user_data}; echo "user data ended with status $?"'
REFUSED = (
    "echo 'The user data was not run: only scripts are, whose first line begins with #!"
    " (cloud-config is not read here).'"
)


def decoded(user_data) -> bytes:
    """Return user data as the instance gets it: out of base64, and out of gzip."""
    data = base64.b64decode(str(user_data or ""))
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


class Instance(instances.Instance):
    """moto's instance with the machine that it stands for.

    Attributes:
        image: the image of ``helpers.vm`` that it boots.
        vm: its machine while there is one.
        disk: what it has written, once it has been started.
    """

    images: dict[str, str] = {}  # AMI id to image

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.image = self.images[self.image_id]
        nic, spec = self.nics[0], (kwargs.get("nics") or [{}])[0]
        self.security_groups = list(dict.fromkeys([*self.security_groups, *nic._group_set]))
        if "NetworkInterfaceId" not in spec:
            nic.delete_on_termination = spec.get("DeleteOnTermination", True)
        self.vm: vm.VM | None = None
        self.disk: Path | None = None
        self._process: psutil.Process | None = None
        self._log, self._booted = "", False
        self._lock = threading.RLock()  # for whoever has to do with the machine
        self._become("pending")

    def setup_defaults(self) -> None:
        """Give it a root volume, under the name that its image has for it."""
        zone = self.availability_zone
        volume = self.ec2_backend.create_volume(size=8, zone_name=zone, volume_type="gp3")
        self.ec2_backend.attach_volume(volume.id, self.id, self.root_device_name, True)

    def _become(self, state: str, code: str = "", message: str = "") -> None:
        self._state = instances.InstanceState(state, CODES[state])
        self.state_reason = instances.StateReason(f"{code}: {message}" if code else "", code)
        self._reason = code

    def _must_be(self, state: str, deed: str) -> None:
        if self.state != state:
            text = f"The instance '{self.id}' is not in a state from which it can be {deed}."
            raise Refusal("IncorrectInstanceState", text)

    # --- What a call asks for: the state changes at once, the machine in a thread

    def launch(self) -> None:
        """Boot it for the first time."""
        threading.Thread(target=self._boot, daemon=True).start()

    def start(self) -> instances.InstanceState:
        """Start it if it is stopped, and return the state before."""
        before = copy.copy(self._state)
        if self.state != "running":
            self._must_be("stopped", "started")
            super().start()
            self._keep_elastic_address()
            self._become("pending")
            self.launch()
        return before

    def stop(self) -> instances.InstanceState:
        """Shut it down, keep its root file system, and return the state before."""
        before = copy.copy(self._state)
        if self.state not in ("stopped", "stopping"):
            self._must_be("running", "stopped")
            self._become("stopping")
            threading.Thread(target=self._shut_down, daemon=True).start()
        return before

    def reboot(self) -> None:
        """Let it end what runs and start again; it keeps its address and its files."""
        self._must_be("running", "rebooted")
        with self._lock, contextlib.suppress(vm.VMError):
            self.vm.run("(sleep 0.2; reboot) &")  # not before this has been answered

    def terminate(self) -> instances.InstanceState:
        """Remove the machine and its files, and return the state before."""
        before = copy.copy(self._state)
        if self.state not in ("terminated", "shutting-down"):
            self._become("shutting-down")
            threading.Thread(target=self._remove, daemon=True).start()
        return before

    def _boot(self) -> None:
        with self._lock:
            if self.state != "pending":  # it was terminated meanwhile
                return
            try:
                self._start_machine()
                self._publish()
            except Exception as problem:
                self._unplug()
                if not self._booted:
                    self._forget_disk()
                self._stopped("stopped" if self._booted else "terminated")
                self._become(self.state, "Server.InternalError", str(problem))
            else:
                self._booted = True
                if self.state == "pending":  # and not terminated meanwhile
                    self._become("running")
        self.look()  # a rule may have come in the last moment

    def _start_machine(self) -> None:
        facts = INSTANCE_TYPES[self.instance_type]
        cpus, memory = facts["VCpuInfo"]["DefaultVCpus"], facts["MemoryInfo"]["SizeInMiB"]
        real = min(cpus, machine.cores()), min(memory, most_memory())
        if real != (cpus, memory):
            self.note(
                f"{self.instance_type} has {cpus} vCPU and {memory} MiB; "
                f"this machine gives {real[0]} and {real[1]}."
            )
        if not self.disk:
            self.disk = environment.folder() / f"{self.id}.raw"
            ledger.record("files", f"root file system of {self.id}", path=str(self.disk))
            with open(self.disk, "wb") as file:
                file.truncate(DISK_MB << 20)
        port = os.environ["MOTO_PORT"]
        self.vm = vm.boot(
            self.image,
            name=self.id,
            cpus=real[0],
            memory=real[1],
            ports=(),
            files=self._files(),
            command=START.format(keys=KEYS, port=port, run=self._first_command()),
            guest_command=shlex.join([sys.executable, "-IS", relay.__file__, port]),
            disk=self.disk,
            address=self.public_ip or vm.Settings.address,
            reboots=True,
        )
        self._process = psutil.Process(self.vm.pid)

    def _files(self) -> dict[str, bytes | Path]:
        modules = kernel.default().modules(("ext4", "overlay"))
        pair = self.ec2_backend.key_pairs.get(self.key_name)
        line = "{}:x:0:0::/{}:/bin/sh\n"
        users = line.format("root", "root") + line.format("ec2-user", "home/ec2-user")
        return {
            "keep": "".join(f"{module.name}\n" for module in modules).encode(),
            **{f"modules/{module.name}": module for module in modules},
            "etc/passwd": users.encode(),
            "etc/group": b"root:x:0:\n",
            "usr/bin/sudo": b'#!/bin/sh\nexec "$@"\n',
            "usr/bin/nohup": b"#!/bin/sh\ntrap '' HUP\nexec \"$@\"\n",
            KEYS: pair.material_public.strip() + b"\n" if pair else b"",
            USER_DATA: decoded(self.user_data),
        }

    def _first_command(self) -> str:
        data = decoded(self.user_data)
        run = RUN.format(user_data=USER_DATA) if data.startswith(b"#!") else REFUSED
        return run if data.strip() else ":"

    def _shut_down(self) -> None:
        with self._lock:
            self._power_off()
            self._unplug()
            self._stopped()

    def _remove(self) -> None:
        with self._lock:
            self._unplug()
            self._forget_disk()
            if self.state != "terminated":  # as when it did not boot
                super().terminate()

    def _stopped(self, state: str = "stopped") -> None:
        (super().stop if state == "stopped" else super().terminate)()
        self._keep_elastic_address()

    def _keep_elastic_address(self) -> None:
        for one in self.ec2_backend.addresses:
            if one.eni is self.nics[0]:
                self.nics[0].public_ip = one.public_ip

    # --- The machine

    def _power_off(self) -> None:
        """Let it end what runs, if it is there and answers."""
        with contextlib.suppress(vm.VMError):  # as it ends, it answers no more
            if self.vm:
                self.vm.run("poweroff", timeout=30)

    def _forget_disk(self) -> None:
        for entry in ledger.entries("files"):
            if entry.facts["path"] == str(self.disk):
                ledger.stop(entry)
        self.disk = None

    def _unplug(self) -> None:
        if self.vm:
            self._log += self.vm.console()
            self.vm.stop()
        self.vm = self._process = None

    def look(self) -> None:
        """Make the record true: whether the machine lives, and which of its ports are open."""
        if self.state != "running":
            return  # it starts or stops just now, and looks itself
        with self._lock:
            if self.vm and not self._lives():
                self._died()
            elif self.vm:
                with contextlib.suppress(vm.VMError):  # it dies just now
                    self._publish()

    def _lives(self) -> bool:
        with contextlib.suppress(psutil.Error):
            if self._process.is_running():
                return self._process.status() != psutil.STATUS_ZOMBIE
        return False

    def _died(self) -> None:
        text = self.vm.console()
        last = (text.strip().splitlines() or ["nothing"])[-1]
        itself = "reboot: " in last
        self._unplug()
        ends = itself and self.instance_initiated_shutdown_behavior == "terminate"
        if ends:
            self._forget_disk()
        self._stopped("terminated" if ends else "stopped")
        if itself:
            self._become(
                self.state, "Client.InstanceInitiatedShutdown", "Instance initiated shutdown"
            )
        else:
            text = f"The virtual machine ended unexpectedly. Its console ends with: {last}"
            self._become(self.state, "Server.InternalError", text)

    # --- Its network

    @property
    def public_dns_name(self) -> str | None:
        """The address itself: a name that would have to be asked for outside is no use here."""
        return self.public_ip

    def open_ports(self) -> set[int]:
        """Return the TCP ports that its security groups open to the learner, if it has a way in."""
        if not self.public_ip or not self._has_route():
            return set()
        rules = [rule for group in self.security_groups for rule in group.ingress_rules]
        return {port for rule in rules for port in opened(rule)}

    def _has_route(self) -> bool:
        """Say whether its subnet has a route to an internet gateway (the default VPC has one)."""
        subnet = self.nics[0].subnet
        if self.ec2_backend.vpcs[subnet.vpc_id].is_default:
            return True
        tables = [t for t in self.ec2_backend.route_tables.values() if t.vpc_id == subnet.vpc_id]
        own = [table for table in tables if subnet.id in table._associations.values()]
        return any(
            route.destination_cidr_block == "0.0.0.0/0" and str(route.gateway_id).startswith("igw-")
            for table in own or [table for table in tables if table.main_association_id]
            for route in table.routes
        )

    def _publish(self) -> None:
        wanted, settings = self.open_ports(), self.vm.settings
        moved = self.public_ip and settings.address != self.public_ip
        for port in list(settings.ports):
            if moved or port not in wanted:
                self.vm.unpublish(port)
                self.ec2_backend.tags[self.id].pop(f"lab:port-{port}", None)
        settings.address = self.public_ip or settings.address
        for port in sorted(wanted - set(settings.ports)):
            self._open(port)

    def _open(self, port: int) -> None:
        """Publish a port at the same number; where that is not to be had, say at which one."""
        for host_port in (port, (port + 8000) % 65536, 0):
            try:
                here = self.vm.publish(port, host_port)
                break
            except vm.VMError:
                if not host_port:
                    raise
        if here != port:
            place = f"{self.public_ip}:{here}"
            self.add_tag(f"lab:port-{port}", place)
            self.note(f"Port {port} of this machine is not to be had; it answers at {place}.")

    # --- What it tells

    def note(self, text: str) -> None:
        """Write a line of the local cloud's own to the console."""
        self._log += f"lab: {text}\n"

    @property
    def console(self) -> str:
        """The last 64 KB of its console, over all starts."""
        now = self.vm
        return (self._log + (now.console() if now else ""))[-65536:]

    @property
    def instance_status(self) -> dict:
        """What the status check finds: whether its userspace answers."""
        if self.state != "running":
            return {"Status": "not-applicable"}
        answers = False
        with self._lock, contextlib.suppress(vm.VMError):
            answers = self.vm is not None and self.vm.run("true", timeout=5).returncode == 0
        return _status("ok", "passed") if answers else _status("impaired", "failed")


def opened(rule) -> range:
    """Return the TCP ports that a rule of a security group opens to the learner."""
    cidr = rule.ip_range.get("CidrIp")
    if not cidr or LEARNER not in ipaddress.ip_network(cidr, strict=False):
        return range(0)
    if rule.ip_protocol == "-1":
        return range(1, 65536)
    if rule.ip_protocol not in ("tcp", "6"):
        return range(0)
    return range(max(1, int(rule.from_port)), int(rule.to_port) + 1)


def most_memory() -> int:
    """Return the MB that one instance may have here: half of what is free, but at most 4096."""
    return min(machine.facts()["memory_free_mb"] // 2, 4096)


def _status(status: str, reachability: str) -> dict:
    return {"Details": [{"Name": "reachability", "Status": reachability}], "Status": status}
