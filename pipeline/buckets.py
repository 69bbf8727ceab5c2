"""Buckets: a place in an object store that answers as a path does.

In:    `s3://bucket/prefix`; the environment says where and how: AWS_ENDPOINT_URL, AWS_REGION,
       AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN (or a machine's role),
       AWS_ALLOW_HTTP=true for a store without TLS, AWS_VIRTUAL_HOSTED_STYLE_REQUEST.
Out:   `BucketPath`, a `pathlib.Path` whose reads, writes and listings are the store's. A folder is
       there when something lies in it. What a bucket cannot do is refused, never done on this disk.
Rerun: every write is one request and whole or not there. `put(absent=True)` writes only where
       nothing lies (If-None-Match), and `refusal` tries out whether the store keeps to that.

obstore is the client: the same Rust code as Lance's own, so both read one environment and agree on
what a conditional put is. Each object that came from a file carries that file's sha256.
"""

import fnmatch
import hashlib
import mmap
import os
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

if TYPE_CHECKING:
    # Loaded when a root is in a bucket: an extra, and of no use to any other root.
    from obstore.store import S3Store

SCHEME = "s3://"
SHA256, ROWS = "sha256", "rows"  # what an object says of itself
SIZE = "size"
LARGEST_PUT = 5 * 2**30  # of one request, which is the only one that can be conditional
METADATA = "169.254.169.254"  # where a machine of Amazon's finds its role; asked last
EXTRA = "pip install -e '.[s3]'"

Options: TypeAlias = tuple[tuple[str, str], ...]


class StoreRefused(OSError):  # noqa: N818
    """A store did not do what it was asked; the sentence names the place and says why."""


class BucketPath(PosixPath):
    """`BucketPath("s3://bucket/prefix")`; what is derived from one by `/` or `parent` is one."""

    _entry: "Mapping[str, Any] | None" = None  # what the listing that found it said

    def __str__(self) -> str:
        parts = self.parts
        return SCHEME + "/".join(parts[1:]) if parts[:1] == ("s3:",) else super().__str__()

    def __repr__(self) -> str:
        return f"BucketPath({str(self)!r})"

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is in a bucket, which this operation cannot reach")

    @property
    def bucket(self) -> str:
        return self.parts[1]

    @property
    def key(self) -> str:
        return "/".join(self.parts[2:])

    @property
    def _store(self) -> "S3Store":
        return _store(self.bucket, settings())

    # --- looking --------------------------------------------------------------------------------

    def entry(self) -> "Mapping[str, Any] | None":
        """Size, time and tag of the object; None where there is none."""
        import obstore

        if self._entry is not None:
            return self._entry
        with asking(self):
            try:
                return dict(obstore.head(self._store, self.key)) if self.key else None
            except FileNotFoundError:
                return None

    def stated(self) -> dict[str, str]:
        """Its size and what it says of itself, `SHA256`, `ROWS`; FileNotFoundError without it."""
        import obstore

        with asking(self):
            found = obstore.get(self._store, self.key, options={"head": True})
        says = {str(name): str(value) for name, value in found.attributes.items()}
        return says | {SIZE: str(found.meta["size"])}

    def exists(self, *_: Any, **__: Any) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return self.entry() is not None

    def is_dir(self) -> bool:
        return self._entry is None and next(self._below(), None) is not None

    def stat(self, *_: Any, **__: Any) -> os.stat_result:
        found = self.entry()
        if found is None:
            raise FileNotFoundError(f"{self} is not there")
        when = found["last_modified"].timestamp()
        numbers = (stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, found["size"], *[int(when)] * 3)
        return os.stat_result(numbers, {"st_mtime": when, "st_mtime_ns": int(when * 1e9)})

    def lstat(self) -> os.stat_result:
        return self.stat()

    def absolute(self) -> "BucketPath":
        return self

    def resolve(self, strict: bool = False) -> "BucketPath":
        return self

    def sizes(self) -> dict[str, int]:
        """Of every object right below, by name: one request for a thousand of them."""
        import obstore

        with asking(self):
            found = obstore.list_with_delimiter(self._store, self.key)["objects"]
        return {each["path"].rpartition("/")[2]: each["size"] for each in found}

    def iterdir(self) -> Generator["BucketPath", None, None]:
        yield from self.glob("*")

    def glob(self, pattern: str, **_: Any) -> Generator["BucketPath", None, None]:
        """Objects and folders that match, as `Path.glob` finds files and folders."""
        *folders, last = pattern.split("/")
        plain = [name for name in folders if not set(name) & set("*?[")]
        head = plain if plain == folders[: len(plain)] else []
        rest, seen = [*folders[len(head) :], last], set()
        start = self.joinpath(*head)
        depth = len(start.parts)
        for found in start._below():
            names = found.parts[depth:]
            for upto in range(1, len(names) + 1):
                path = found if upto == len(names) else start.joinpath(*names[:upto])
                if path not in seen and _matches(names[:upto], rest):
                    seen.add(path)
                    yield path

    def rglob(self, pattern: str, **_: Any) -> Generator["BucketPath", None, None]:
        yield from self.glob(f"**/{pattern}")

    def _below(self) -> Iterator["BucketPath"]:
        import obstore

        top = BucketPath(SCHEME + self.bucket)
        with asking(self):
            for page in obstore.list(self._store, self.key or None):
                for entry in page:
                    found = top / entry["path"]
                    found._entry = entry
                    yield found

    # --- reading --------------------------------------------------------------------------------

    def chunks(self) -> Iterator[memoryview]:
        """The object's bytes in pieces; FileNotFoundError where it is not."""
        import obstore

        with asking(self):
            for piece in obstore.get(self._store, self.key).stream():
                yield memoryview(piece)

    def read_bytes(self) -> bytes:
        return b"".join(self.chunks())

    def read_text(self, encoding: str | None = None, errors: str | None = None, **_: Any) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def fetch(self, to: Path) -> str:
        """Copy the object into a file on this disk; the sha256 of what came."""
        total = hashlib.sha256()
        with to.open("wb") as file:
            for piece in self.chunks():
                total.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        return total.hexdigest()

    # --- writing --------------------------------------------------------------------------------

    def put(self, data: "bytes | mmap.mmap", says: Mapping[str, str], *, absent: bool) -> bool:
        """Write the object whole. With `absent`, False where one lies already, which stays."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with asking(self):
            try:
                obstore.put(
                    self._store,
                    self.key,
                    data,
                    mode="create" if absent else "overwrite",
                    attributes={name: says[name] for name in (SHA256, ROWS) if name in says},
                    use_multipart=False if absent else None,
                )
            except AlreadyExistsError:
                return False
        return True

    def send(self, file: Path, sha256: str, rows: int | None = None, *, absent: bool) -> bool:
        """`put` of a file on this disk, which is read as it goes and never held in memory."""
        says = {SHA256: sha256} | ({} if rows is None else {ROWS: str(rows)})
        size = file.stat().st_size
        if not size:
            return self.put(b"", says, absent=absent)
        if absent and size > LARGEST_PUT:
            raise ValueError(
                f"{file} has {size:,} bytes and {self} takes {LARGEST_PUT:,} in one request: "
                "choose fewer rows a shard"
            )
        with file.open("rb") as handle, mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ) as pages:
            return self.put(pages, says, absent=absent)

    def write_bytes(self, data: Any) -> int:
        held = bytes(data)
        self.put(held, {SHA256: hashlib.sha256(held).hexdigest()}, absent=False)
        return len(held)

    def write_text(self, data: str, encoding: str | None = None, *_: Any, **__: Any) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8"))

    def unlink(self, missing_ok: bool = False) -> None:
        """A store says nothing where there was nothing to delete."""
        import obstore

        self._entry = None
        with asking(self):
            obstore.delete(self._store, self.key)

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Nothing: a folder is there when something lies in it."""

    def rename(self, target: Any) -> "BucketPath":
        """Object by object, with what it says of itself; not at once, so never used to publish."""
        import obstore

        goal = BucketPath(target)
        found = [self] if self.is_file() else list(self._below())
        with asking(self):
            for each in found:
                place = goal.joinpath(*each.parts[len(self.parts) :])
                obstore.copy(self._store, each.key, place.key)
                each.unlink()
        return goal


def check_root(root: str) -> str:
    """The root of a run as it was given; ValueError for a kind of store that is not known."""
    if root.startswith(SCHEME):
        bucket, *folders = root.removeprefix(SCHEME).rstrip("/").split("/")
        if bucket and not {"", ".", ".."} & set(folders):
            return root
    elif "://" not in root and not root.startswith("s3:"):
        return root
    raise ValueError(f"root: {root!r}; allowed are a folder and s3://bucket/prefix")


def settings() -> Options:
    """What the environment says of the store, as Lance and obstore name it; no secret is in it."""
    at = os.environ
    endpoint = at.get("AWS_ENDPOINT_URL_S3") or at.get("AWS_ENDPOINT_URL") or at.get("AWS_ENDPOINT")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ValueError(f"AWS_ENDPOINT_URL: {endpoint!r}; allowed is https://host, or http://host")
    found = {
        "aws_endpoint": endpoint,
        "aws_region": at.get("AWS_REGION") or at.get("AWS_DEFAULT_REGION") or "us-east-1",
        "allow_http": "true" if at.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true") else None,
        "aws_virtual_hosted_style_request": at.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST"),
    }
    return tuple((name, value) for name, value in found.items() if value)


@lru_cache(maxsize=16)
def _store(bucket: str, options: Options) -> "S3Store":
    from obstore.store import S3Store

    # A container file hands on what it was not given as "", which both clients take for a value.
    for name in [name for name, value in os.environ.items() if name.startswith("AWS_")]:
        if not os.environ[name]:
            del os.environ[name]
    values = dict(options)
    http = values.pop("allow_http", "false") == "true"
    return S3Store(bucket, config=values, client_options={"allow_http": http})


def refusal(root: BucketPath) -> str:
    """Why this root cannot hold a run's artifacts; empty where it can. Writes and removes a key."""
    return _refusal(root, settings())


@lru_cache(maxsize=16)
def _refusal(root: BucketPath, options: Options) -> str:
    endpoint = dict(options).get("aws_endpoint", "")
    if endpoint.startswith("http://") and ("allow_http", "true") not in options:
        return f"AWS_ENDPOINT_URL {endpoint} is not encrypted: say AWS_ALLOW_HTTP=true to allow it"
    place = root / ".probe" / uuid4().hex
    try:
        kept = [place.put(word, {}, absent=True) for word in (b"first", b"second")]
        held = place.read_bytes()
    except (StoreRefused, FileNotFoundError) as error:
        return str(error)
    place.unlink()
    if kept == [True, False] and held == b"first":
        return ""
    return (
        "this store lets a second writer put over the first (it ignores If-None-Match), so commits "
        "of two machines would undo one another: use a store that keeps conditional puts, such "
        "as S3, R2 or a current MinIO, or a folder"
    )


@contextmanager
def asking(place: BucketPath) -> Iterator[None]:
    """Errors of the store become `StoreRefused`; what is not there stays a FileNotFoundError."""
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        # Its further lines are its own debugging.
        why = str(error).strip().splitlines()[0]
        if METADATA in why:
            why = "no credentials: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role"
        raise StoreRefused(f"{place}: {why}") from error
    except FileNotFoundError as error:
        # The store's words tell a missing bucket from a missing object.
        bucket = "NoSuchBucket" in str(error)
        what = f"there is no bucket {place.bucket}" if bucket else "is not there"
        raise FileNotFoundError(f"{place}: {what}" if bucket else f"{place} {what}") from None


def _matches(names: tuple[str, ...], pattern: list[str]) -> bool:
    """Do these names fit the pattern's, `**` standing for any number of folders?"""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[skip:], pattern[1:]) for skip in range(len(names) + 1))
    return (
        bool(names)
        and fnmatch.fnmatchcase(names[0], pattern[0])
        and _matches(names[1:], pattern[1:])
    )
