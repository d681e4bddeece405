"""ECR: repositories of images that a real registry keeps (``helpers.cloud.ecr``).

Not here: scanning, replication, layers by the API (``docker push`` sends them), and the daily run
of lifecycle policies, whose preview says what it would delete.
"""

from __future__ import annotations

import base64
import json
import threading
from types import SimpleNamespace

from moto.core.responses import ActionResult
from moto.ecr import models, urls
from moto.ecr.exceptions import ImageAlreadyExistsException
from moto.ecr.models import ECRBackend, Repository, ecr_backends
from moto.ecr.responses import ECRResponse

from helpers.cloud import calls, policies
from helpers.cloud.calls import Refusal
from helpers.cloud.ecr import lifecycle, registry
from helpers.cloud.environment import ACCOUNT
from helpers.cloud.services import events

SCHEMA = "application/vnd.docker.distribution.manifest.v2+json"


def arn(region: str, name: str) -> str:
    """Return the ARN of a repository."""
    return f"arn:aws:ecr:{region}:{ACCOUNT}:repository/{name}"


def of(region: str) -> Backend:
    """Return the repositories of a region."""
    return ecr_backends[ACCOUNT][region]


def policy(resource: str) -> list[dict]:
    """Return the policy of the repository that an ARN is about, if it has one."""
    if not resource.startswith("arn:"):
        return []
    *_, region, _, path = resource.split(":", 5)
    found = of(region).repositories.get(path.removeprefix("repository/"))
    document = json.loads(found.policy) if found and found.policy else {}
    said = policies.listed(document.get("Statement"))
    return [document | {"Statement": [one | {"Resource": "*"} for one in said]}] if said else []


def find(repository: Repository, what: str) -> Image | None:
    """Return the image that a tag or a digest means, or None if there is none."""
    images = repository.images
    return next((one for one in images if what in (one.image_digest, *one.image_tags)), None)


class Image(models.Image):
    """An image, whose size is that of its parts."""

    def get_image_size_in_bytes(self) -> int | None:
        """Return the size of configuration and layers; None for a list of images."""
        manifest = json.loads(self.image_manifest)
        if "layers" not in manifest:
            return None
        return sum(part["size"] for part in (manifest["config"], *manifest["layers"]))

    def remove_tag(self, tag: str) -> None:
        """Take a tag away, so that it does not come back."""
        super().remove_tag(tag)
        self.image_tag = self.image_tags[-1] if self.image_tags else None


class Backend(ECRBackend):
    """moto's ECR, with the contents of the images in a registry."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.lock = threading.RLock()

    def create_repository(self, *args, **kwargs) -> Repository:
        """Make a repository in the registry of this cloud."""
        made = super().create_repository(*args, **kwargs)
        made.uri = f"{registry.host()}/{made.name}"
        return made

    def repository(self, name: str) -> Repository:
        """Return a repository.

        Raises:
            Refusal: there is none of this name.
        """
        if name not in self.repositories:
            where = f"in the registry with id '{ACCOUNT}'"
            text = f"The repository with name '{name}' does not exist {where}"
            raise Refusal("RepositoryNotFoundException", text, 404)
        return self.repositories[name]

    def push(self, name: str, manifest: bytes, tag: str, kind: str) -> Image:
        """Take a manifest in, give it a tag unless that is empty, and return the image.

        Raises:
            Refusal: the tag may not move, or the manifest is none.
        """
        with self.lock:
            repository = self.repository(name)
            tagged = find(repository, tag) if tag else None
            image = find(repository, registry.digest(manifest))
            if tagged and tagged is not image:
                self._check_movable(repository, tag)
            if not image:
                registry.put(self.region_name, name, manifest, kind)
                image = Image(ACCOUNT, None, manifest.decode(), name, kind)
                image._image_digest = registry.digest(manifest)
                repository.images.append(image)
            if tagged:
                tagged.remove_tag(tag)
            if tag:
                image.update_tag(tag)
        self._tell("PUSH", name, image.image_digest, tag)
        return image

    def put_image(self, repository_name, image_manifest, image_tag, kind=None, digest=None):
        """Give an image a tag, by its manifest."""
        repository, manifest = self.repository(repository_name), image_manifest.encode()
        made = registry.digest(manifest)
        if digest and digest != made:
            text = f"Image digest does not match the provided digest {digest}"
            raise Refusal("ImageDigestDoesNotMatchException", text)
        there = find(repository, made)
        if there and (not image_tag or image_tag in there.image_tags):
            raise ImageAlreadyExistsException(ACCOUNT, image_tag, made, repository_name)
        try:
            kind = kind or json.loads(manifest).get("mediaType") or SCHEMA
            return self.push(repository_name, manifest, image_tag or "", kind)
        except (ValueError, AttributeError):
            text = "Invalid parameter at 'ImageManifest' failed to satisfy constraint: "
            raise Refusal("InvalidParameterException", text + "'Invalid JSON syntax'") from None
        except Refusal as problem:
            code = {"TAG_INVALID": "ImageTagAlreadyExistsException"}
            code = code.get(problem.code, "ReferencedImagesNotFoundException")
            raise Refusal(code, problem.message) from None

    def batch_delete_image(self, repository_name, registry_id=None, image_ids=None) -> dict:
        """Take tags away, and images that are named by digest or lose their last tag."""
        answer, repository = {"imageIds": [], "failures": []}, self.repository(repository_name)
        for one in image_ids or []:
            tag, digest = one.get("imageTag"), one.get("imageDigest")
            with self.lock:
                image = find(repository, digest or tag or "")
                if not image or (tag and tag not in image.image_tags):
                    failure = {"imageId": one, "failureCode": "ImageNotFound"}
                    failure["failureReason"] = "Requested image not found"
                    answer["failures"].append(failure)
                    continue
                gone = list(image.image_tags) if digest else [tag]
                ids = [{"imageDigest": image.image_digest, "imageTag": each} for each in gone]
                answer["imageIds"] += ids or [{"imageDigest": image.image_digest}]
                for each in gone:
                    image.remove_tag(each)
                if not image.image_tags:
                    self._remove(repository, image)
        return answer

    def delete_repository(self, repository_name, registry_id=None, force=False) -> Repository:
        """Delete a repository, with its images if that is wanted."""
        gone = super().delete_repository(repository_name, registry_id, force)
        for image in list(gone.images):
            self._remove(gone, image)
        return gone

    def _check_movable(self, repository: Repository, tag: str) -> None:
        try:
            self._resolve_image_tag_mutability(repository, tag)
        except ImageAlreadyExistsException:
            text = f"The image tag '{tag}' already exists in the '{repository.name}' repository "
            text += "and cannot be overwritten because the tag is immutable."
            raise Refusal("TAG_INVALID", text) from None

    def _remove(self, repository: Repository, image: Image) -> None:
        repository.images.remove(image)
        path = f"{self.region_name}/{repository.name}/manifests/{image.image_digest}"
        registry.send("DELETE", path).close()
        self._tell("DELETE", repository.name, image.image_digest, "")

    def _tell(self, action: str, name: str, digest: str, tag: str) -> None:
        detail = {"result": "SUCCESS", "repository-name": name, "image-digest": digest}
        detail |= {"action-type": action, "image-tag": tag}
        events.emit(self.region_name, "aws.ecr", "ECR Image Action", [], detail)

    def _not_here(self, *args, **kwargs) -> None:
        raise NotImplementedError("docker push sends layers; nothing scans or copies them")

    initiate_layer_upload = upload_layer_part = complete_layer_upload = _not_here
    batch_check_layer_availability = start_image_scan = describe_image_scan_findings = _not_here
    put_replication_configuration = put_registry_scanning_configuration = _not_here


class Response(ECRResponse):
    """moto's answers, where they are not canned."""

    def get_authorization_token(self) -> ActionResult:
        """Return a password for the registry that stands for whoever asks."""
        password, expires = registry.token(self.get_access_key(), self.region)
        data = {
            "authorizationToken": base64.b64encode(f"AWS:{password}".encode()).decode(),
            "expiresAt": expires,
            "proxyEndpoint": f"http://{registry.host()}",
        }
        return ActionResult({"authorizationData": [data]})

    def start_lifecycle_policy_preview(self) -> ActionResult:
        """Find out what a lifecycle policy would delete."""
        name, text = self._get_param("repositoryName"), self._get_param("lifecyclePolicyText")
        repository = self.ecr_backend.repository(name)
        if not text:
            text = self.ecr_backend.get_lifecycle_policy(None, name)["lifecyclePolicyText"]
        models.EcrLifecyclePolicyValidator(text).validate()
        results = lifecycle.preview(repository.images, text)
        begun = {"registryId": ACCOUNT, "repositoryName": name, "lifecyclePolicyText": text}
        repository.preview = begun | {"status": "COMPLETE", "previewResults": results}
        repository.preview["summary"] = {"expiringImageTotalCount": len(results)}
        return ActionResult(begun | {"status": "IN_PROGRESS"})

    def get_lifecycle_policy_preview(self) -> ActionResult:
        """Return what the last preview has found."""
        name = self._get_param("repositoryName")
        found = getattr(self.ecr_backend.repository(name), "preview", None)
        if not found:
            text = "There is no dry run for this repository."
            raise Refusal("LifecyclePolicyPreviewNotFoundException", text)
        return ActionResult(found)


Backend._url_module = SimpleNamespace(
    url_bases=urls.url_bases, url_paths={path: Response.dispatch for path in urls.url_paths}
)
ecr_backends.backend = Backend
calls.DOORS[registry.DOOR] = registry.door
