"""Downloads one file: resumed where it stopped, checked, and moved into place whole."""

import errno
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vprompt_jax.process.errors import UserError

_CHUNK = 2**16  # bytes; what is less than one when the connection breaks is lost
_TIMEOUT = 30  # seconds without a byte


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    check: Callable[[Path], object] | None = None,
    headers: dict[str, str] | None = None,
    offline: bool = False,
    optional: bool = False,
) -> bool:
    """Makes sure that a file lies at `target`.

    Only one process of a host downloads a file; the others wait for it. What arrived of a file
    whose digest is known is kept when the connection breaks, and the next call goes on from there.

    Args:
      url: where the file comes from.
      target: where it shall lie; appears only when whole and checked.
      sha256: of the file, in hex. None: the one the server announces, if any (Hugging Face's
        X-Linked-Etag).
      check: raises a UserError where the file at a path is not what it should be. Called where
        there is no digest, which alone would tell a whole file from half of one, or from the page
        that a network's login puts in its place.
      headers: sent with the request.
      offline: do not connect.
      optional: a file that the server does not have is no error.

    Returns:
      Whether the file is there.

    Raises:
      UserError: if it cannot be had; what the user can do is in the message.
    """
    import filelock

    if target.is_file():
        return True
    if offline:
        raise UserError(
            f"{target} is not there and VPROMPT_OFFLINE (or offline=True) forbids to download it: "
            f"fetch it once while connected, or copy {url} there"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{target}.lock"):
            return target.is_file() or _download(
                url, target, sha256, check, headers or {}, optional
            )
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(
                f"no space left for {target}: free some, or set VPROMPT_CACHE to a folder on a "
                "larger disk; the same command goes on from what arrived"
            ) from error
        raise UserError(f"cannot write {target}: {error}; set VPROMPT_CACHE elsewhere") from error


def _download(
    url: str,
    target: Path,
    sha256: str | None,
    check: Callable[[Path], object] | None,
    headers: dict[str, str],
    optional: bool,
) -> bool:
    import requests

    part = target.with_name(f"{target.name}.part")
    # Encodings would hide how many bytes of the file there are.
    headers = headers | {"Accept-Encoding": "identity"}
    try:
        sha256 = sha256 or _announced_digest(url, headers)
        # Without a digest nothing would tell whether the file is still the one that was begun.
        have = part.stat().st_size if sha256 and part.exists() else 0
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == 404 and optional:
                return False
            if response.status_code == 416:  # nothing beyond what is there already
                total: int | None = have
            elif response.status_code not in (200, 206):
                raise UserError(_refusal(url, response.status_code))
            else:
                if response.status_code == 200 or not _continues(response, have):
                    have = 0
                total = _total(response, have)
                _receive(response, part, have, total)
    except requests.RequestException as error:
        arrived = part.stat().st_size if part.exists() else 0
        raise UserError(
            f"the download of {url} stopped after {arrived:,} bytes ({error}): the same command "
            "tries again; without a network, set VPROMPT_OFFLINE=1 and use files you have"
        ) from error
    size = part.stat().st_size
    if total is not None and size < total:
        raise UserError(
            f"the download of {url} stopped after {size:,} of {total:,} bytes: the same command "
            "goes on from there"
        )
    _refuse_html(part, url)
    if sha256 and (found := _digest(part)) != sha256:
        part.unlink()
        raise UserError(
            f"what came from {url} has SHA-256 {found[:12]}..., not {sha256[:12]}...: it was "
            "damaged on the way, and discarded; the same command fetches it again"
        )
    if check and not sha256:
        try:
            check(part)
        except UserError as error:
            part.unlink()
            raise UserError(
                f"what came from {url} ({size:,} bytes) was damaged on the way, or is another "
                f"file, and was discarded; the same command fetches it again: {error}"
            ) from error
    os.replace(part, target)
    return True


def _refuse_html(part: Path, url: str) -> None:
    with part.open("rb") as file:
        start = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html")):
        part.unlink()
        raise UserError(
            f"{url} answered with a web page in place of the file: it was discarded; log in to the "
            "network, or set the proxy, and give the same command again"
        )


def _refusal(url: str, status: int) -> str:
    reason = {
        401: "it is private or does not exist: check the name, or set HF_TOKEN",
        403: "it is gated: accept its terms on its page and set HF_TOKEN",
        404: "there is no such file: check the name",
    }
    default = "try again later, or download the file another way and give its path"
    return f"{url} answered {status}: {reason.get(status, default)}"


def _continues(response: Any, have: int) -> bool:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == have


def _total(response: Any, have: int) -> int | None:
    length = response.headers.get("Content-Length")
    return None if length is None else have + int(length)


def _announced_digest(url: str, headers: dict[str, str]) -> str | None:
    """SHA-256 of a large file, which Hugging Face says where it redirects to the file itself."""
    import requests

    final = requests.head(url, headers=headers, timeout=_TIMEOUT, allow_redirects=True)
    for answer in (*final.history, final):
        tag = answer.headers.get("X-Linked-Etag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            return tag
    return None


def _receive(response: Any, part: Path, have: int, total: int | None) -> None:
    import tqdm

    # tqdm draws nothing where standard error is no terminal.
    with (
        part.open("ab" if have else "wb") as file,
        tqdm.tqdm(
            desc=part.name.removesuffix(".part"), initial=have, total=total, unit="B",
            unit_scale=True, disable=None,
        ) as bar,
    ):  # fmt: skip
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
