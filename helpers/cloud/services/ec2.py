"""EC2: instances are virtual machines, and security groups decide which of their ports answer.

moto keeps the records (networks, groups, keys, tags); ``helpers.cloud.instances`` runs what they
tell of. An instance has a loopback address of its own as its public address, where it answers at
the guest's own port numbers. ICMP, ranges of more than 64 ports, IPv6 and rules for outgoing
traffic have no effect or are refused; nothing leaves an instance.
"""

from __future__ import annotations

import base64
import re
import threading
from types import SimpleNamespace

from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2 import urls
from moto.ec2.models import EC2Backend, ec2_backends, elastic_ip_addresses, instances
from moto.ec2.models import elastic_network_interfaces as interfaces
from moto.ec2.models.amis import Ami
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.responses import EC2Response
from moto.ec2.responses import instances as requests

from helpers import machine
from helpers.cloud import calls
from helpers.cloud.calls import Call, Refusal
from helpers.cloud.instances import (
    LEAST_MEMORY,
    MOST_PORTS,
    Instance,
    decoded,
    most_memory,
    opened,
)

BUSYBOX_AMI = "ami-0b5b0c5b0c5b00001"
SERVER_AMI = "ami-0b5b0c5b0c5b00002"
AMIS = {  # id: image of helpers.vm, name, description
    BUSYBOX_AMI: ("busybox", "busybox-1.35-x86_64", "A shell and its tools; the smallest."),
    SERVER_AMI: (
        "server",
        "al2023-ami-2023.0.lab-kernel-6.1-x86_64",  # as templates look for it
        "Stands in for Amazon Linux 2023: Debian's kernel, busybox, bash, Python 3, SSH server.",
    ),
}
ROOT_DEVICE = "/dev/xvda"
# What moto would only note down, and why there is nothing behind it.
MISSING = {
    "(Attach|Detach|Modify)Volume": "an instance has its root volume only",
    "(Create|Copy|Register)Image|CreateSnapshots?": "all images are those of describe-images",
    "RequestSpot(Instances|Fleet)|CreateFleet": "there is no spot market",
    "(Attach|Detach)NetworkInterface": "an instance has one interface",
}
MALFORMED = re.compile(r"(?!i-([0-9a-f]{8}|[0-9a-f]{17})$)")


def check(call: Call) -> None:
    """Refuse what would be noted down and not done, and ids that cannot be any."""
    if call.service != "ec2":
        return
    for pattern, why in MISSING.items():
        if re.fullmatch(pattern, call.operation):
            raise NotImplementedError(why)
    if call.request.values.get("Hibernate") == "true":
        raise NotImplementedError("an instance's memory is not kept")
    for name, value in call.request.values.items():
        if re.fullmatch(r"InstanceId(\.\d+)?", name) and MALFORMED.match(value):
            raise Refusal("InvalidInstanceID.Malformed", f'Invalid id: "{value}"')


class Response(EC2Response):
    """moto's answers, before and after which all machines are looked at."""

    def call_action(self):
        """Answer a call; what it has changed about networks takes effect at once."""
        backend = self.ec2_backend
        backend.look()
        try:
            return super().call_action()
        finally:
            if not self._get_action().startswith(("Describe", "Get")):
                backend.look()

    def run_instances(self) -> ActionResult:
        """Launch as many as there may be."""
        least, most = int(self._get_param("MinCount", 1)), int(self._get_param("MaxCount", 1))
        if not 1 <= least <= most:
            text = f"Value ({least}) for parameter minCount is invalid. It is 1 to maxCount."
            raise Refusal("InvalidParameterValue", text)
        self.params["MinCount"] = most
        return super().run_instances()

    def get_console_output(self) -> ActionResult:
        """Return what the instance has written to its console."""
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        output = Base64EncodedString.from_raw_string(instance.console)
        result = {"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output}
        return ActionResult(result)


class Backend(EC2Backend):
    """moto's EC2 whose instances run."""

    _url_module = SimpleNamespace(url_bases=urls.url_bases, url_paths={"{0}/": Response.dispatch})

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self._tokens: dict[str, instances.Reservation] = {}
        self._launching = threading.Lock()

    def _load_amis(self) -> None:
        """Offer our images and no others."""
        for ami, (_, name, description) in AMIS.items():
            self.amis[ami] = Ami(
                self,
                ami,
                name=name,
                description=description,
                owner_alias="amazon",
                public=True,
                virtualization_type="hvm",
                architecture="x86_64",
                hypervisor="xen",
                image_location=f"amazon/{name}",
                root_device_type="ebs",
                root_device_name=ROOT_DEVICE,
            )

    def look(self) -> None:
        """Make the records of all instances true."""
        for instance in self.all_instances():
            instance.look()

    def run_instances(self, image_id, count, user_data, security_group_names, **kwargs):
        """Launch instances, if all that they name is there; the same token does it only once."""
        with self._launching:
            token = kwargs.get("client_token", "ABCDE")  # what moto puts for none
            if token in self._tokens and token != "ABCDE":
                return self._tokens[token]
            self._check_launch(image_id, user_data, kwargs)
            nics = kwargs.get("nics") or []
            groups = [*security_group_names, *kwargs.get("security_group_ids", [])]
            groups += [one for nic in nics for one in nic.get("Groups", [])]
            self._check_groups(groups)
            if not groups:
                subnets = [nic["SubnetId"] for nic in nics if "SubnetId" in nic]
                subnet = kwargs.get("subnet_id") or (subnets or [None])[0]
                vpc = self.get_subnet(subnet).vpc_id if subnet else self.default_vpc.id
                kwargs["security_group_ids"] = [self.get_default_security_group(vpc).id]
            try:
                reservation = super().run_instances(
                    image_id, count, user_data, security_group_names, **kwargs
                )
            except Exception:  # moto has a reservation already
                for one in [one for one in self.all_reservations() if not one.instances]:
                    del self.reservations[one.id]
                raise
            self._tokens[token] = reservation
        for instance in reservation.instances:
            instance.launch()
        return reservation

    def _check_launch(self, image_id: str, user_data: str, kwargs: dict) -> None:
        """Refuse what AWS refuses, with its words, and what there is not here."""
        if kwargs.get("launch_template"):
            raise NotImplementedError("a launch says itself what is launched, without a template")
        if not image_id:
            text = "The request must contain the parameter ImageId"
            raise Refusal("MissingParameter", text)
        self.describe_images([image_id])  # which moto refuses well
        kind, key = kwargs["instance_type"], kwargs.get("key_name")
        check_type(kind)
        if key and key not in self.key_pairs:
            raise Refusal("InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist")
        if len(decoded(user_data)) > 16384:
            raise Refusal("InvalidParameterValue", "User data is limited to 16384 bytes")
        if kwargs.get("instance_market_options"):
            raise NotImplementedError("there is no spot market")
        if str((kwargs.get("hibernation_options") or {}).get("Configured")).lower() == "true":
            raise NotImplementedError("an instance's memory is not kept")
        for one in kwargs.get("block_device_mappings") or []:
            if one["DeviceName"] not in (ROOT_DEVICE, "/dev/sda1"):
                raise NotImplementedError("an instance has its root volume only")
        if most_memory() < LEAST_MEMORY:
            have = most_memory()
            raise Refusal(
                "InsufficientInstanceCapacity",
                f"We currently do not have sufficient {kind} capacity: {have} MB could be given "
                f"to it on this machine, and it needs {LEAST_MEMORY}. Stop something first.",
                500,
            )

    def _check_groups(self, names: list[str]) -> None:
        for name in names:
            if not self.get_security_group_by_name_or_id(name):
                text = f"The security group '{name}' does not exist"
                raise Refusal("InvalidGroup.NotFound", text)

    def modify_instance_attribute(self, instance_id: str, key: str, value):
        """Change an attribute; type and user data only while the instance is stopped."""
        instance = self.get_instance(instance_id)
        if key in ("instance_type", "user_data") and instance.state != "stopped":
            text = f"The instance '{instance_id}' is not in the 'stopped' state."
            raise Refusal("IncorrectInstanceState", text)
        if key == "instance_type":
            check_type(value)
        return super().modify_instance_attribute(instance_id, key, value)

    def modify_instance_security_groups(self, instance_id: str, new_group_id_list: list[str]):
        """Put an instance into other groups."""
        if not new_group_id_list:  # moto comes here with any attribute that it does not know
            raise NotImplementedError("this attribute cannot be changed")
        self._check_groups(new_group_id_list)
        super().modify_instance_security_groups(instance_id, new_group_id_list)
        self.get_instance(instance_id).nics[0]._group_set = []

    def authorize_security_group_ingress(self, *args, **kwargs):
        """Add rules, if the ports that they open can be published here."""
        rules, group = super().authorize_security_group_ingress(*args, **kwargs)
        if any(len(opened(rule)) > MOST_PORTS for rule in rules):
            group.ingress_rules = [rule for rule in group.ingress_rules if rule not in rules]
            raise NotImplementedError(f"a rule may open {MOST_PORTS} ports to the outside at most")
        return rules, group

    def modify_security_group_rules(self, group_id: str, rules: dict) -> None:
        """Refuse, since moto notes a part of it only."""
        raise NotImplementedError("revoke the rule and authorize another")

    def delete_security_group(self, name: str | None = None, group_id: str | None = None) -> None:
        """Remove a group that no instance is in."""
        group = self.get_security_group_by_name_or_id(group_id or name or "")
        for instance in self.all_instances():
            if group in instance.security_groups and instance.state != "terminated":
                text = f"resource {group.id} has a dependent object"
                raise Refusal("DependencyViolation", text)
        super().delete_security_group(name, group_id)


def check_type(name: str) -> None:
    """Refuse a type that there is not, or whose processor our images are not for."""
    if name not in INSTANCE_TYPES:
        raise Refusal("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
    built = INSTANCE_TYPES[name]["ProcessorInfo"]["SupportedArchitectures"]
    if "x86_64" not in built:
        text = f"The architecture '{built[0]}' of the specified instance type does not match the "
        text += "architecture 'x86_64' of the specified AMI. Specify an instance type and an AMI "
        text += "that have matching architectures, and try again."
        raise Refusal("InvalidParameterValue", text)


Instance.images = {ami: image for ami, (image, *_) in AMIS.items()}
instances.Instance = Instance
_user_data = requests.parse_user_data  # takes what is decoded (a blob is) for what is encoded
requests.parse_user_data = lambda data: _user_data(
    base64.b64encode(data) if isinstance(data, bytes) else data
)
_name = interfaces.generate_dns_from_ip
interfaces.generate_dns_from_ip = lambda ip, *kind: ip if ip[:4] == "127." else _name(ip, *kind)
interfaces.random_public_ip = elastic_ip_addresses.random_ip = machine.loopback_address
ec2_backends.backend = Backend
calls.CHECKS.append(check)
