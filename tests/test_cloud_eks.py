"""EKS on the local cloud: clusters that run, and who may do what in them."""

import base64
import datetime
import json
import os
import signal
import subprocess

import boto3
import botocore.auth
import pytest
import urllib3
import yaml
from asking import refused
from botocore.exceptions import ClientError
from waiting import until

from helpers import cloud, ledger
from helpers.cloud import costs, local
from helpers.cluster import programs
from helpers.cluster.api import Api

ACCOUNT = "123456789012"
POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKS"
EVERYWHERE = {"type": "cluster"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def aws(shared_home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_PODS", "process")
        yield cloud.start()


@pytest.fixture(scope="module")
def eks(aws):
    return boto3.client("eks")


@pytest.fixture(scope="module")
def subnets(aws):
    """A subnet in each zone."""
    found = boto3.client("ec2").describe_subnets()["Subnets"]
    return [one["SubnetId"] for one in sorted(found, key=lambda one: one["AvailabilityZone"])]


def role(name, **principal):
    one = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}
    document = json.dumps({"Version": "2012-10-17", "Statement": [one]})
    iam = boto3.client("iam")
    return iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]


@pytest.fixture(scope="module")
def roles(aws):
    return {name: role(name, Service=f"{name}.amazonaws.com") for name in ("eks", "ec2", "lambda")}


@pytest.fixture(scope="module")
def asked(roles, subnets):
    """What create-cluster needs, but for the name."""
    both = {"authenticationMode": "API_AND_CONFIG_MAP"}
    place = {"subnetIds": subnets[:2]}
    return {"roleArn": roles["eks"], "resourcesVpcConfig": place, "accessConfig": both}


@pytest.fixture(scope="module")
def shop(eks, asked):
    """A cluster that all tests share."""
    assert eks.create_cluster(name="shop", **asked)["cluster"]["status"] == "CREATING"
    eks.get_waiter("cluster_active").wait(name="shop")
    return eks.describe_cluster(name="shop")["cluster"]


@pytest.fixture(scope="module")
def admin(shop, shared_home):
    """The API without EKS in between."""
    return Api(shared_home / "clusters/eks-shop/kubeconfig")


class Person:
    """A user or a session of a role, with kubectl as AWS's command sets it up."""

    def __init__(self, arn, keys, home):
        self.arn, self.kubeconfig = arn, home / f"{arn.rsplit('/', 1)[-1]}.kubeconfig"
        names = "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN".split()
        keys = [keys["AccessKeyId"], keys["SecretAccessKey"], keys.get("SessionToken")]
        self.keys = {name: key for name, key in zip(names, keys, strict=True) if key}
        self.session = boto3.Session(*keys)

    def sh(self, *words):
        """Run a command; return exit status and what it says."""
        environment = os.environ | self.keys | {"KUBECONFIG": str(self.kubeconfig)}
        run = {"env": environment, "capture_output": True, "text": True}
        done = subprocess.run([str(word) for word in words], **run)
        return done.returncode, done.stdout + done.stderr

    def kubectl(self, words):
        if not self.kubeconfig.exists():  # the permissions of EKS are another matter
            config = {"KUBECONFIG": str(self.kubeconfig)}
            command = ["aws", "eks", "update-kubeconfig", "--name", "shop"]
            subprocess.run(command, env=os.environ | config, check=True, capture_output=True)
        return self.sh(programs.kubectl(), *words.split())


@pytest.fixture
def user(shop, tmp_path, request):
    iam, name = boto3.client("iam"), f"u{abs(hash(request.node.nodeid)) % 10**10}"
    arn = iam.create_user(UserName=name)["User"]["Arn"]
    return Person(arn, iam.create_access_key(UserName=name)["AccessKey"], tmp_path)


@pytest.fixture
def member(shop, user, tmp_path, request):
    """A session of a role, whose name is ada."""
    arn = role(f"r{abs(hash(request.node.nodeid)) % 10**10}", AWS=user.arn)
    may = [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": arn}]
    document = json.dumps({"Version": "2012-10-17", "Statement": may})
    where = {"UserName": user.arn.rsplit("/", 1)[1], "PolicyName": "p"}
    boto3.client("iam").put_user_policy(**where, PolicyDocument=document)
    sts = user.session.client("sts")
    keys = sts.assume_role(RoleArn=arn, RoleSessionName="ada@example")["Credentials"]
    return Person(arn, keys, tmp_path)


def token(session, name="shop", minutes_ago=0, patch=None):
    """A token as ``aws eks get-token`` makes it."""
    if minutes_ago:
        when = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=minutes_ago)
        patch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: when)
    client = session.client("sts")
    sign = lambda request, **_: request.headers.add_header("x-k8s-aws-id", name)  # noqa: E731
    if name:
        client.meta.events.register("before-sign.sts.GetCallerIdentity", sign)
    url = client.generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def answer(cluster, token, path="/api/v1/namespaces"):
    """What the API answers to the bearer of a token: HTTP status and text."""
    ca = base64.b64decode(cluster["certificateAuthority"]["data"]).decode()
    pool = urllib3.PoolManager(ca_cert_data=ca)
    headers = {"Authorization": f"Bearer {token}"}
    got = pool.request("GET", cluster["endpoint"] + path, headers=headers)
    return got.status, got.data.decode()


# --- Clusters


def test_a_cluster_is_active_when_its_api_answers(shop, eks):
    assert shop["arn"] == f"arn:aws:eks:us-east-1:{ACCOUNT}:cluster/shop"
    release = ".".join(map(str, programs.find().version))
    status, said = answer(shop, token(boto3.Session()), "/version")
    assert status == 200 and json.loads(said)["gitVersion"].startswith(f"v{release}.")
    assert shop["version"] == release
    assert shop["resourcesVpcConfig"]["clusterSecurityGroupId"].startswith("sg-")
    assert shop["accessConfig"]["bootstrapClusterCreatorAdminPermissions"] is True
    assert eks.list_clusters()["clusters"] == ["shop"]
    assert eks.list_addons(clusterName="shop")["addons"] == []


def test_the_issuer_is_the_one_that_signs_the_tokens_of_service_accounts(shop, admin):
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    until(lambda: admin.get("/api/v1/namespaces/default/serviceaccounts")["items"])
    made = admin.create(path, request)["status"]["token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(made + "=="))
    assert claims["iss"] == shop["identity"]["oidc"]["issuer"]


def test_what_aws_refuses_is_refused_in_its_words(eks, asked, roles, subnets):
    def trial(**more):
        return refused(
            "InvalidParameterException", eks.create_cluster, **{"name": "x", **asked, **more}
        )

    for arn in (roles["lambda"], f"arn:aws:iam::{ACCOUNT}:role/nobody"):
        text = "could not be assumed because it does not exist or the trusted entity is not correct"
        assert trial(roleArn=arn) == f"Role with arn: {arn}, {text}"
    one = {"subnetIds": subnets[:1]}
    text = "Subnets specified must be in at least two different AZs"
    assert trial(resourcesVpcConfig=one) == text
    text = "The subnet ID 'subnet-0' does not exist (Service: AmazonEC2; Status Code: 400; "
    assert trial(resourcesVpcConfig={"subnetIds": ["subnet-0"]}).startswith(text)
    release = ".".join(map(str, programs.find().version))
    assert trial(version="1.5") == (
        f"unsupported Kubernetes version 1.5: the local cloud has {release}"
    )
    text = refused("ResourceNotFoundException", eks.describe_cluster, name="x")
    assert text == "No cluster found for name: x."


def test_a_second_cluster_of_the_name_is_refused(shop, eks, asked):
    text = refused("ResourceInUseException", eks.create_cluster, name="shop", **asked)
    assert text == "Cluster already exists with name: shop"


def test_what_nothing_is_behind_is_refused(shop, eks, asked, roles):
    logs = {"clusterLogging": [{"types": ["api"], "enabled": True}]}
    refused("NotImplemented", eks.create_cluster, name="x", **asked, logging=logs)
    refused(
        "NotImplemented", eks.create_cluster, name="x", **asked, computeConfig={"enabled": True}
    )
    refused("NotImplemented", eks.create_addon, clusterName="shop", addonName="vpc-cni")
    text = refused(
        "NotImplemented",
        eks.create_pod_identity_association,
        clusterName="shop",
        namespace="default",
        serviceAccount="default",
        roleArn=roles["ec2"],
    )
    assert "pods do not reach the local cloud" in text
    text = refused(
        "InvalidParameterException", eks.update_cluster_version, name="shop", version="1.99"
    )
    assert text.startswith("unsupported Kubernetes version 1.99")


def test_tags_come_and_go(shop, eks):
    eks.tag_resource(resourceArn=shop["arn"], tags={"team": "a", "old": "b"})
    eks.untag_resource(resourceArn=shop["arn"], tagKeys=["old"])
    assert eks.describe_cluster(name="shop")["cluster"]["tags"] == {"team": "a"}
    assert eks.list_tags_for_resource(resourceArn=shop["arn"])["tags"] == {"team": "a"}


def test_who_may_do_what_is_up_to_iam(shop, user):
    client = user.session.client("eks")
    text = refused("AccessDeniedException", client.describe_cluster, name="shop")
    assert "is not authorized to perform: eks:DescribeCluster on resource: " + shop["arn"] in text
    entry = {"clusterName": "shop", "principalArn": user.arn}
    text = refused("AccessDeniedException", client.delete_access_entry, **entry)
    name = user.arn.rsplit("/", 1)[1]
    assert f":access-entry/shop/user/{ACCOUNT}/{name}/" in text
    text = refused("AccessDeniedException", client.create_access_entry, **entry)
    assert shop["arn"] in text


def test_whoever_makes_a_cluster_must_be_allowed_to_pass_the_role(user, asked):
    statement = {"Effect": "Allow", "Action": "eks:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    where = {"UserName": user.arn.rsplit("/", 1)[1], "PolicyName": "p"}
    boto3.client("iam").put_user_policy(**where, PolicyDocument=document)
    client = user.session.client("eks")
    text = refused("AccessDeniedException", client.create_cluster, name="x", **asked)
    assert f"iam:PassRole on resource: {asked['roleArn']}" in text


def test_a_cluster_that_does_not_start_says_why(eks, asked, shared_home):
    folder = shared_home / "clusters/eks-taken"
    folder.mkdir(parents=True)
    eks.create_cluster(name="taken", **asked)
    find = lambda: eks.describe_cluster(name="taken")["cluster"]  # noqa: E731
    until(lambda: find()["status"] == "FAILED")
    (issue,) = find()["health"]["issues"]
    assert issue["message"] == "There is a cluster eks-taken already."
    text = refused("InvalidRequestException", eks.list_access_entries, clusterName="taken")
    assert text == "Cluster 'taken' is not in ACTIVE status"
    folder.rmdir()
    eks.delete_cluster(name="taken")
    eks.get_waiter("cluster_deleted").wait(name="taken")


# --- Who may do what in a cluster


def test_the_creator_is_admin_by_kubectl(shop, tmp_path):
    keys = {"AccessKeyId": os.environ["AWS_ACCESS_KEY_ID"]}
    keys["SecretAccessKey"] = os.environ["AWS_SECRET_ACCESS_KEY"]
    root = Person(f"arn:aws:iam::{ACCOUNT}:root", keys, tmp_path)
    status, said = root.kubectl("auth can-i * *")
    assert (status, said.strip().splitlines()[-1]) == (0, "yes")
    status, said = root.kubectl("get namespaces -o name")
    assert "namespace/kube-system" in said.split()


def test_who_is_not_mapped_must_log_in(user):
    status, said = user.kubectl("get pods")
    assert status == 1
    assert "error: You must be logged in to the server (Unauthorized)" in said


def test_view_may_list_but_not_delete(member, eks, shop):
    entry = {"clusterName": "shop", "principalArn": member.arn}
    made = eks.create_access_entry(**entry)["accessEntry"]
    name = member.arn.rsplit("/", 1)[1]
    assert made["username"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{{{{SessionName}}}}"
    done = eks.associate_access_policy(
        **entry, policyArn=f"{POLICY}ViewPolicy", accessScope=EVERYWHERE
    )
    assert done["associatedAccessPolicy"]["accessScope"] == {"type": "cluster", "namespaces": []}
    assert until(lambda: member.kubectl("get configmaps -A")[0] == 0)
    status, said = member.kubectl("delete configmap x")
    person = f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/ada-example"
    assert status == 1 and f'(Forbidden): configmaps "x" is forbidden: User "{person}"' in said
    eks.disassociate_access_policy(**entry, policyArn=f"{POLICY}ViewPolicy")
    until(lambda: answer(shop, token(member.session), "/api/v1/configmaps")[0] == 403)
    eks.delete_access_entry(**entry)
    until(lambda: answer(shop, token(member.session))[0] == 401)


def test_a_policy_may_hold_in_namespaces_that_come_later(user, eks, shop, admin):
    entry = {"clusterName": "shop", "principalArn": user.arn}
    eks.create_access_entry(**entry)
    scope = {"type": "namespace", "namespaces": ["team-*"]}
    eks.associate_access_policy(**entry, policyArn=f"{POLICY}EditPolicy", accessScope=scope)
    admin.create("/api/v1/namespaces", {"metadata": {"name": "team-a"}})
    there, elsewhere = (f"/api/v1/namespaces/{name}/secrets" for name in ("team-a", "default"))
    until(lambda: answer(shop, token(user.session), there)[0] == 200)
    assert answer(shop, token(user.session), elsewhere)[0] == 403


def test_groups_of_an_entry_are_those_of_kubernetes(user, eks, shop, admin):
    entry = {"clusterName": "shop", "principalArn": user.arn}
    eks.create_access_entry(**entry, kubernetesGroups=["readers"], username="eve")
    rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    admin.create(f"{rbac}/clusterroles", {"metadata": {"name": "readers"}, "rules": [rule]})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "readers"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "readers"}
    body = {"metadata": {"name": "readers"}, "roleRef": ref, "subjects": [subject]}
    admin.create(f"{rbac}/clusterrolebindings", body)
    until(lambda: answer(shop, token(user.session), "/api/v1/nodes")[0] == 200)
    assert '\\"eve\\" cannot list' in answer(shop, token(user.session))[1]
    text = refused(
        "InvalidParameterException",
        eks.update_access_entry,
        **entry,
        kubernetesGroups=["system:masters"],
    )
    assert text.endswith("name system:masters is invalid, it cannot start with system:")


def test_access_entries_are_refused_as_aws_does(eks, shop, user):
    nobody = {"clusterName": "shop", "principalArn": f"arn:aws:iam::{ACCOUNT}:user/nobody"}
    text = refused("InvalidParameterException", eks.create_access_entry, **nobody)
    assert text == "The specified principalArn is invalid: invalid principal."
    text = refused("ResourceNotFoundException", eks.describe_access_entry, **nobody)
    assert text.startswith("The specified principalArn could not be found.")
    entry = {"clusterName": "shop", "principalArn": user.arn}
    eks.create_access_entry(**entry)
    text = refused("ResourceInUseException", eks.create_access_entry, **entry)
    assert text == "The specified access entry resource is already in use on this cluster."
    names = {one["name"] for one in eks.list_access_policies()["accessPolicies"]}
    assert "AmazonEKSClusterAdminPolicy" in names
    refused(
        "InvalidParameterException",
        eks.associate_access_policy,
        **entry,
        policyArn=f"{POLICY}NoPolicy",
        accessScope=EVERYWHERE,
    )


def test_aws_auth_maps_roles_and_users(shop, admin, member, user):
    group = ["system:masters"]
    name = "{{AccountID}}:{{SessionName}}"
    data = {
        "mapRoles": yaml.safe_dump([{"rolearn": member.arn, "username": name, "groups": group}]),
        "mapUsers": yaml.safe_dump([{"userarn": user.arn, "username": "bob", "groups": ["none"]}]),
    }
    path = "/api/v1/namespaces/kube-system/configmaps"
    admin.create(path, {"metadata": {"name": "aws-auth"}, "data": data})
    until(lambda: answer(shop, token(member.session))[0] == 200)
    until(lambda: 'User \\"bob\\"' in answer(shop, token(user.session))[1])
    admin.patch(f"{path}/aws-auth", {"data": {"mapRoles": "- no: [good"}})
    until(lambda: answer(shop, token(member.session))[0] == 401)
    admin.delete(f"{path}/aws-auth")


def test_tokens_that_are_not_good_are_refused(shop, monkeypatch):
    root = boto3.Session()
    assert answer(shop, token(root))[0] == 200
    assert answer(shop, token(root, minutes_ago=10, patch=monkeypatch))[0] == 200
    assert answer(shop, token(root, minutes_ago=16, patch=monkeypatch))[0] == 401
    monkeypatch.undo()
    assert answer(shop, token(root, name="other"))[0] == 401
    assert answer(shop, token(root, name=""))[0] == 401
    forged = boto3.Session(os.environ["AWS_ACCESS_KEY_ID"], "guessed")
    assert answer(shop, token(forged))[0] == 401
    assert answer(shop, token(boto3.Session("AKIAUNKNOWN000000000", "x")))[0] == 401
    assert answer(shop, "k8s-aws-v1.nonsense")[0] == 401


def test_the_door_is_shut_for_others(aws, shop):
    review = json.dumps({"spec": {"token": token(boto3.Session())}})
    for secret in ("", "/guess", "/guess/more"):
        url = f"{aws.endpoint}/_eks/us-east-1/shop{secret}"
        assert urllib3.request("POST", url, body=review).status == 403


# --- Node groups


@pytest.fixture(scope="module")
def web(shop, eks, roles, subnets):
    """A node group that all tests share."""
    made = eks.create_nodegroup(
        clusterName="shop",
        nodegroupName="web",
        nodeRole=roles["ec2"],
        subnets=subnets[:2],
        instanceTypes=["t3.small"],
        scalingConfig={"minSize": 1, "maxSize": 3, "desiredSize": 2},
        labels={"tier": "front"},
    )
    assert made["nodegroup"]["status"] == "CREATING"
    wait(eks)
    return {"clusterName": "shop", "nodegroupName": "web"}


def wait(eks):
    eks.get_waiter("nodegroup_active").wait(clusterName="shop", nodegroupName="web")


def nodes(admin):
    return admin.get("/api/v1/nodes")["items"]


def test_a_node_group_is_active_when_its_nodes_are_ready(web, eks, admin):
    found = nodes(admin)
    assert len(found) == 2
    for node in found:
        labels, zone = node["metadata"]["labels"], node["spec"]["providerID"].split("/")[3]
        assert labels["eks.amazonaws.com/nodegroup"] == "web" and labels["tier"] == "front"
        assert labels["node.kubernetes.io/instance-type"] == "t3.small"
        assert labels["topology.kubernetes.io/zone"] == zone
        assert node["metadata"]["name"].startswith("ip-172-31-")
        assert node["metadata"]["name"].endswith(".ec2.internal")
        assert node["status"]["capacity"]["cpu"] == "2"
        assert node["status"]["capacity"]["memory"] == "2Gi"
    assert len({node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in found}) == 2
    assert eks.describe_nodegroup(**web)["nodegroup"]["health"] == {"issues": []}
    entries = eks.list_access_entries(clusterName="shop")["accessEntries"]
    assert f"arn:aws:iam::{ACCOUNT}:role/ec2" in entries


def test_node_groups_are_refused_as_aws_does(web, eks, roles, subnets):
    given = {"clusterName": "shop", "nodegroupName": "x", "subnets": subnets[:1]}

    def trial(code="InvalidParameterException", **more):
        more = {"nodeRole": roles["ec2"], **given, **more}
        return refused(code, eks.create_nodegroup, **more)

    text = trial(nodeRole=roles["lambda"])
    assert text.startswith("Following required service principals [ec2.amazonaws.com] were not ")
    text = trial(nodeRole=f"arn:aws:iam::{ACCOUNT}:role/nobody")
    assert text == "The role with name nobody cannot be found."
    assert "Invalid value 't9.huge'" in trial(instanceTypes=["t9.huge"])
    size = {"minSize": 3, "maxSize": 4, "desiredSize": 2}
    text = "Minimum capacity 3 can't be greater than desired size 2"
    assert trial(scalingConfig=size) == text
    text = trial(labels={"eks.amazonaws.com/x": "y"})
    assert text.startswith("Label cannot contain reserved prefixes")
    assert "NodeGroup already exists" in trial("ResourceInUseException", nodegroupName="web")
    text = refused("ResourceInUseException", eks.delete_cluster, name="shop")
    assert text == "Cluster has nodegroups attached"


def test_labels_and_taints_reach_the_nodes(web, eks, admin):
    taint = {"key": "only", "value": "us", "effect": "NO_SCHEDULE"}
    labels = {"addOrUpdateLabels": {"tier": "back"}}
    update = eks.update_nodegroup_config(
        **web, labels=labels, taints={"addOrUpdateTaints": [taint]}
    )["update"]
    wait(eks)
    for node in nodes(admin):
        assert node["metadata"]["labels"]["tier"] == "back"
        assert {"key": "only", "value": "us", "effect": "NoSchedule"} in node["spec"]["taints"]
    named = {"name": "shop", "nodegroupName": "web"}
    assert update["id"] in eks.list_updates(**named)["updateIds"]
    done = eks.describe_update(**named, updateId=update["id"])["update"]
    assert done["status"] == "Successful"
    eks.update_nodegroup_config(**web, taints={"removeTaints": [taint]})
    wait(eks)
    assert not any("only" in str(node["spec"].get("taints")) for node in nodes(admin))


@pytest.fixture
def image(shop, shared_home):
    """Something for pods to do, where they are processes."""
    known = shared_home / "clusters/eks-shop/images.json"
    sleeper = {"cwd": "/", "command": ["sleep", "1000"], "env": {}}
    known.write_text(json.dumps({"sleeper:1": sleeper}))
    return "sleeper:1"


def pods(admin):
    """Return where the pods of the namespace default run, if all are Ready."""
    found = admin.get("/api/v1/namespaces/default/pods")["items"]
    live = [one for one in found if "deletionTimestamp" not in one["metadata"]]
    ready = [
        one["spec"]["nodeName"]
        for one in live
        for condition in one["status"].get("conditions", [])
        if (condition["type"], condition["status"]) == ("Ready", "True")
    ]
    return ready if len(ready) == len(live) else []


def test_a_group_that_shrinks_drains_its_nodes_first(web, eks, admin, image):
    labels = {"app": "sleeper"}
    container = {"name": "main", "image": image, "imagePullPolicy": "Never"}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    body = {
        "metadata": {"name": "sleeper"},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    admin.create("/apis/apps/v1/namespaces/default/deployments", body)
    until(lambda: len(set(pods(admin))) == 2)
    eks.update_nodegroup_config(**web, scalingConfig={"desiredSize": 3})
    wait(eks)
    assert len(nodes(admin)) == 3
    items = {one.item: one for one in costs.items() if one.name == "shop/web"}
    assert items["t3.small"].hour == pytest.approx(3 * 0.0208)
    eks.update_nodegroup_config(**web, scalingConfig={"desiredSize": 1})
    wait(eks)
    (left,) = nodes(admin)
    until(lambda: pods(admin) == 4 * [left["metadata"]["name"]])
    reasons = {one["reason"] for one in admin.get("/api/v1/namespaces/default/events")["items"]}
    assert "FailedCreate" not in reasons


def test_a_group_that_is_deleted_leaves_no_node(web, eks, admin):
    assert eks.delete_nodegroup(**web)["nodegroup"]["status"] == "DELETING"
    eks.get_waiter("nodegroup_deleted").wait(**web)
    assert nodes(admin) == [] and eks.list_nodegroups(clusterName="shop")["nodegroups"] == []
    assert not [entry for entry in ledger.entries("process") if "node" in entry.facts]


# --- Beginning and end


def test_how_a_cluster_knows_its_users_changes_in_one_direction(eks, shop, admin, user):
    def change(mode):
        config = {"authenticationMode": mode}
        return eks.update_cluster_config(name="shop", accessConfig=config)["update"]

    text = "Unsupported authentication mode update from API_AND_CONFIG_MAP to CONFIG_MAP"
    with pytest.raises(ClientError, match=text):
        change("CONFIG_MAP")
    users = yaml.safe_dump([{"userarn": user.arn, "username": "bob", "groups": ["system:masters"]}])
    path = "/api/v1/namespaces/kube-system/configmaps"
    admin.create(path, {"metadata": {"name": "aws-auth"}, "data": {"mapUsers": users}})
    until(lambda: answer(shop, token(user.session))[0] == 200)
    assert change("API")["status"] == "Successful"
    until(lambda: answer(shop, token(user.session))[0] == 401)
    with pytest.raises(ClientError, match="from API to API_AND_CONFIG_MAP"):
        change("API_AND_CONFIG_MAP")


def test_nothing_is_left_of_a_cluster_that_is_deleted(shop, eks, shared_home):
    group = shop["resourcesVpcConfig"]["clusterSecurityGroupId"]
    assert eks.delete_cluster(name="shop")["cluster"]["status"] == "DELETING"
    eks.get_waiter("cluster_deleted").wait(name="shop")
    assert [entry.name for entry in ledger.entries("process")] == [local.NAME]
    assert list((shared_home / "clusters").iterdir()) == []
    assert list((shared_home / "cloud").glob("*.webhook")) == []
    with pytest.raises(ClientError, match="InvalidGroup.NotFound"):
        boto3.client("ec2").describe_security_groups(GroupIds=[group])


STACK = """
Parameters:
  Size: {Type: Number, Default: 1}
  Subnets: {Type: "List<AWS::EC2::Subnet::Id>"}
Resources:
  Cluster:
    Type: AWS::EKS::Cluster
    Properties:
      Name: stacked
      RoleArn: ROLES/eks
      ResourcesVpcConfig: {SubnetIds: !Ref Subnets}
      Tags: [{Key: team, Value: a}]
  Nodes:
    Type: AWS::EKS::Nodegroup
    Properties:
      ClusterName: !Ref Cluster
      NodeRole: ROLES/ec2
      Subnets: !Ref Subnets
      ScalingConfig: {MinSize: 1, MaxSize: 2, DesiredSize: !Ref Size}
      Labels: {size: !Sub "n${Size}"}
Outputs:
  Endpoint: {Value: !GetAtt Cluster.Endpoint}
  Group: {Value: !GetAtt Cluster.ClusterSecurityGroupId}
  Issuer: {Value: !GetAtt Cluster.OpenIdConnectIssuerUrl}
"""


def test_a_stack_makes_changes_and_deletes_cluster_and_nodes(eks, roles, subnets, shared_home):
    cf = boto3.client("cloudformation")
    stack = {"StackName": "s", "TemplateBody": STACK.replace("ROLES", roles["eks"][:-4])}

    def given(size):
        values = {"Size": size, "Subnets": ",".join(subnets[:2])}
        return [{"ParameterKey": key, "ParameterValue": one} for key, one in values.items()]

    cf.create_stack(**stack, Parameters=given("1"))
    cf.get_waiter("stack_create_complete").wait(StackName="s")
    (made,) = cf.describe_stacks(StackName="s")["Stacks"]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in made["Outputs"]}
    cluster = eks.describe_cluster(name="stacked")["cluster"]
    assert outputs["Endpoint"] == cluster["endpoint"]
    assert outputs["Issuer"] == cluster["identity"]["oidc"]["issuer"]
    assert cluster["tags"] == {"team": "a"}
    admin = Api(shared_home / "clusters/eks-stacked/kubeconfig")
    assert [one["metadata"]["labels"]["size"] for one in nodes(admin)] == ["n1"]
    found = admin.get("/api/v1/namespaces/kube-system/configmaps/aws-auth")["data"]["mapRoles"]
    assert yaml.safe_load(found)[0]["rolearn"] == roles["ec2"]  # as access entries are off
    assert answer(cluster, token(boto3.Session(), "stacked"))[0] == 200
    text = refused("InvalidRequestException", eks.list_access_entries, clusterName="stacked")
    assert "must be set to one of [API, API_AND_CONFIG_MAP]" in text
    cf.update_stack(**stack, Parameters=given("2"))
    cf.get_waiter("stack_update_complete").wait(StackName="s")
    assert [one["metadata"]["labels"]["size"] for one in nodes(admin)] == ["n2", "n2"]
    cf.delete_stack(StackName="s")
    cf.get_waiter("stack_delete_complete").wait(StackName="s")
    assert eks.list_clusters()["clusters"] == []
    assert [entry.name for entry in ledger.entries("process")] == [local.NAME]


def test_a_cloud_that_is_killed_takes_its_clusters_along(eks, asked, shared_home, capsys):
    eks.create_cluster(name="late", **asked)
    until(lambda: (shared_home / "clusters/eks-late/kube-apiserver.log").exists())
    (entry,) = local._entries()
    os.kill(entry.pid, signal.SIGKILL)
    until(lambda: not entry.alive())
    cloud.start()
    assert [entry.name for entry in ledger.entries("process")] == [local.NAME]
    assert boto3.client("eks").list_clusters()["clusters"] == []
    assert list((shared_home / "clusters").iterdir()) == []
