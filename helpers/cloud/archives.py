"""ZIP archives, in which sources, artifacts and code come and go."""

from __future__ import annotations

import io
import zipfile

Files = dict[str, tuple[bytes, int]]  # path: content (of a link: where it leads), and mode


def pack(files: Files) -> bytes:
    """Return an archive of files."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, (content, mode) in sorted(files.items()):
            member = zipfile.ZipInfo(path)
            member.external_attr, member.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    return body.getvalue()


def unpack(content: bytes) -> Files:
    """Return the files of an archive.

    Raises:
        ValueError: it is none, or a path in it leads out of the folder that it is unpacked in.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            files = {one.filename: (archive.read(one), one.external_attr >> 16) for one in members}
    except zipfile.BadZipFile:
        raise ValueError("zip: not a valid zip file") from None
    for path in files:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"zip: the path {path} leads out of the archive")
    return files
