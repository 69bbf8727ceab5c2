"""Tables: what stages leave behind. The only door to Lance.

In:    rows under a `Table` contract, shard by shard, from any process.
Out:   <root>/tables/<table>-<fingerprint>.lance: one data file a shard, one version an input, and
       <root>/snapshots/<table>-<fingerprint>-<inputs>.json, written last.
Rerun: a whole shard is kept after its checksum was compared, a damaged one goes to
       <root>/quarantine/ and is made again; committing the same shards again changes nothing.

The table is named by who makes its rows (contract, code version, values), the version by what
they were made from. Lance itself neither flushes to disk nor keeps checksums: both are done here.
"""

import fcntl
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import lance
import pyarrow as pa
from lance.file import LanceFileReader, LanceFileWriter
from lance.fragment import DataFile, FragmentMetadata

from pipeline.chunks import CHUNK_ROWS, NO_COMPRESSION, check_contract, chunked, reproducible
from pipeline.disk import writing
from pipeline.places import (
    data_file,
    empty_manifests,
    set_aside,
    snapshot_file,
    sum_file,
    table_path,
    version_file,
    versions,
)
from pipeline.seals import (
    digest,
    flush,
    flush_folder,
    identifier,
    read_sealed,
    sha256_of,
    write_sealed,
)
from pipeline.snapshots import Manifest, Shard, Snapshot, Table, Work

# Stages find the values of their contracts here, too.
__all__ = [
    "CHUNK_ROWS", "NO_COMPRESSION", "Manifest", "Shard", "Snapshot", "Table", "TableDamaged",
    "TableFolder", "Work", "batches", "committed", "data_file", "digest", "give_back_memory",
    "identifier", "missing_files", "read", "take",
]  # fmt: skip
FORMAT = "2.2"
STALE_SECONDS = 24 * 3600
SHARD_FIELDS = {field.name for field in fields(Shard)}
SNAPSHOT_FIELDS = {field.name for field in fields(Snapshot)}

logger = logging.getLogger(__name__)


class TableDamaged(ValueError):  # noqa: N818
    """A file of a table is not what was written; the sentence names it."""


class TableFolder:
    """One table on disk, from its contract and the values that shape its rows."""

    def __init__(self, root: Path | str, table: Table, values: object) -> None:
        check_contract(table)
        self.root, self.table = Path(root), table
        fields = [[f.name, str(f.type), f.nullable] for f in table.schema]
        self.fingerprint = identifier(table.name, table.version, fields, values)
        self.name = f"{table.name}-{self.fingerprint}"
        self.path = table_path(self.root, self.name)
        self.place = self.path.relative_to(self.root).as_posix()

    # --- shards ---------------------------------------------------------------------------------

    def write_shard(self, name: str, batches: Iterable[pa.RecordBatch | pa.Table]) -> Shard:
        """The shard's file, from `batches` unless it is there and whole; then they are not read."""
        there = self.whole_shard(name)
        if there is not None:
            return there
        with writing(self.path):
            (self.path / "data").mkdir(parents=True, exist_ok=True)
            (self.path / "sums").mkdir(exist_ok=True)
        part = self.path / "data" / f".{name}.{uuid4().hex}.part"
        with ExitStack() as stack:
            stack.callback(part.unlink, missing_ok=True)
            return self._publish(part, name, batches)

    def _publish(
        self, part: Path, name: str, batches: Iterable[pa.RecordBatch | pa.Table]
    ) -> Shard:
        schema, file = reproducible(self.table.schema), str(part.absolute())
        with writing(self.path):
            with LanceFileWriter(file, schema=schema, version=FORMAT) as writer:
                for chunk in chunked(batches, schema, self.name):
                    writer.write_batch(chunk)
            flush(part)
        rows = int(LanceFileReader(file).metadata().num_rows)
        shard = Shard(name, rows, sha256_of(part), part.stat().st_size, self.name)
        with self._locked():
            twin = self.whole_shard(name)
            if twin is not None:  # another process was faster
                return twin
            # The sum before the file: a file that has its name has its sum.
            write_sealed(self._sum(name), asdict(shard))
            part.replace(data_file(self.root, self.name, name))
            flush(self.path / "data")
        return shard

    def whole_shard(self, name: str) -> Shard | None:
        """The shard if its file is there and its checksum right; a damaged one is moved away."""
        path = data_file(self.root, self.name, name)
        if not path.exists():
            return None
        shard = self.stated_shard(name)
        if shard is not None and not _damage(path, shard, check=True):
            return shard
        place = set_aside(self.root, path)
        logger.warning("%s is damaged: moved to %s, to be made again", path, place)
        return None

    def stated_shard(self, name: str) -> Shard | None:
        """What was noted of the shard when it was written; the file itself is not looked at."""
        path = self._sum(name)
        values = read_sealed(path, SHARD_FIELDS) if path.exists() else None
        return Shard(**values) if values else None

    def read_shard(self, shard: Shard) -> pa.Table:
        """The rows of a shard that was just written and may not be committed yet."""
        path = data_file(self.root, self.name, shard.name)
        return LanceFileReader(str(path.absolute())).read_all().to_table().cast(self.table.schema)

    # --- versions -------------------------------------------------------------------------------

    def commit(self, shards: Sequence[Shard], inputs: str) -> Snapshot:
        """One version of these shards, in this order, tagged `inputs`. Twice is once."""
        for shard in shards:
            path = data_file(self.root, self.name, shard.name)
            if not path.exists() or path.stat().st_size != shard.size:
                raise TableDamaged(f"{path} is not the file that was written; make it again")
        content = _content(shards)
        with writing(self.path):
            (self.path / "data").mkdir(parents=True, exist_ok=True)
            with self._locked():
                _check_manifests(self.path)
                version = self._version_of(inputs, content) or self._commit(shards, inputs, content)
                self._tag(inputs, version)
                self._sweep()
            for folder in ("_versions", "_transactions", "_refs/tags", "_refs", "."):
                flush_folder(self.path / folder)
            self._record(inputs).parent.mkdir(parents=True, exist_ok=True)
        rows = sum(shard.rows for shard in shards)
        snapshot = Snapshot(self.name, version, inputs, content, rows, tuple(shards))
        write_sealed(self._record(inputs), asdict(snapshot))
        return snapshot

    def find(self, inputs: str) -> Snapshot | None:
        """The committed version for these inputs, if all its files are there."""
        path = self._record(inputs)
        if not path.exists():
            return None
        values = read_sealed(path, SNAPSHOT_FIELDS)
        if values is None:
            raise TableDamaged(f"{path} is damaged: delete it and run the stage again")
        snapshot = Snapshot.from_json(values)
        _check_manifests(self.path)
        lost = missing_files(self.root, snapshot)
        if lost:
            logger.warning("%s of %s are to be made again: %s", len(lost), self.name, lost[:3])
            return None
        return snapshot

    def history(self) -> list[Snapshot]:
        """Every version that was committed, the newest first."""
        return sorted(committed(self.root, f"{self.name}-*"), key=lambda each: -each.version)

    def _commit(self, shards: Sequence[Shard], inputs: str, content: str) -> int:
        columns = list(range(len(self.table.schema)))
        filled = [shard for shard in shards if shard.rows]  # an empty one only says "made"
        fragments = [
            FragmentMetadata(
                id=number,
                files=[DataFile(f"{shard.name}.lance", columns, columns, 2, 2, shard.size)],
                physical_rows=shard.rows,
            )
            for number, shard in enumerate(filled)
        ]
        transaction = lance.Transaction(
            read_version=max(versions(self.path), default=0),
            operation=lance.LanceOperation.Overwrite(self.table.schema, fragments),
            transaction_properties={"inputs": inputs, "content": content},
        )
        dataset = lance.LanceDataset.commit(str(self.path), transaction, max_retries=0)
        return int(dataset.version)

    def _version_of(self, inputs: str, content: str) -> int | None:
        """A version committed before, perhaps by a process that died before it wrote its record."""
        there = versions(self.path)
        if not there:
            return None
        dataset = lance.dataset(str(self.path))
        for version in there:  # some may be gone: retention removes what nobody names
            given = dataset.read_transaction(version).transaction_properties
            if given == {"inputs": inputs, "content": content}:
                return version
        return None

    def _tag(self, inputs: str, version: int) -> None:
        dataset = lance.dataset(str(self.path))
        tags = dataset.tags.list()
        if inputs not in tags:
            dataset.tags.create(inputs, version)
        elif tags[inputs]["version"] != version:
            dataset.tags.update(inputs, version)

    def _sweep(self) -> None:
        """Remove what killed writers left, once no writer can still be at it."""
        for pattern in (".*.part", ".tmp*"):
            for path in (self.path / "data").glob(pattern):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time publishes; the lock goes with the process."""
        with (self.path / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _sum(self, name: str) -> Path:
        return sum_file(self.root, self.name, name)

    def _record(self, inputs: str) -> Path:
        return snapshot_file(self.root, self.name, inputs)


def give_back_memory() -> None:
    """What columns took that were read for a moment goes back to the machine, not to a pool."""
    pa.default_memory_pool().release_unused()


def committed(root: Path, names: str = "*") -> list[Snapshot]:
    """Every version that was committed under a root, of the tables whose names match."""
    paths = sorted((root / "snapshots").glob(f"{names}.json"))
    read = [read_sealed(path, SNAPSHOT_FIELDS) for path in paths]
    return [Snapshot.from_json(values) for values in read if values]


# --- reading ------------------------------------------------------------------------------------


def read(
    root: Path | str,
    snapshot: Snapshot,
    columns: Sequence[str] | None = None,
    shards: Sequence[str] | None = None,
    *,
    check: bool = True,
) -> pa.Table:
    """Rows in the order of the shards, after comparing the checksums of the files read."""
    fragments, schema = _fragments(Path(root), snapshot, columns, shards, check)
    if not fragments:
        return schema.empty_table()
    return pa.concat_tables([f.to_table(columns=schema.names) for f in fragments]).cast(schema)


def batches(
    root: Path | str,
    snapshot: Snapshot,
    columns: Sequence[str] | None = None,
    shards: Sequence[str] | None = None,
) -> Iterator[pa.Table]:
    """The rows of `read` in pieces, for columns too wide to hold at once."""
    fragments, schema = _fragments(Path(root), snapshot, columns, shards, check=True)
    for fragment in fragments:
        for batch in fragment.to_batches(columns=schema.names, batch_size=CHUNK_ROWS):
            yield pa.Table.from_batches([batch]).cast(schema)


def take(
    root: Path | str, snapshot: Snapshot, rows: Sequence[int], columns: Sequence[str]
) -> pa.Table:
    """A few rows by number, in the order asked for."""
    ordered = sorted(set(rows))  # several times faster than any other order
    dataset = _open(table_path(Path(root), snapshot.table), snapshot.version)
    if not ordered:
        return pa.schema([dataset.schema.field(name) for name in columns]).empty_table()
    place = {row: number for number, row in enumerate(ordered)}
    table = dataset.take(ordered, columns=list(columns))
    return table.take(pa.array([place[row] for row in rows], pa.int64()))


def _fragments(
    root: Path,
    snapshot: Snapshot,
    columns: Sequence[str] | None,
    shards: Sequence[str] | None,
    check: bool,
) -> tuple[list[Any], pa.Schema]:
    chosen = [s for s in snapshot.shards if shards is None or s.name in shards]
    if shards is not None and len(chosen) != len(set(shards)):
        unknown = sorted(set(shards) - {shard.name for shard in chosen})
        raise ValueError(f"{snapshot.table} version {snapshot.version} has no shard {unknown}")
    for shard in chosen:
        file = data_file(root, snapshot.table, shard.name)
        if damage := _damage(file, shard, check=check):
            raise TableDamaged(f"{file} {damage}; run its stage again with force=true")
    dataset = _open(table_path(root, snapshot.table), snapshot.version)
    wanted = {f"{shard.name}.lance": number for number, shard in enumerate(chosen)}
    fragments = [f for f in dataset.get_fragments() if f.data_files()[0].path in wanted]
    fragments.sort(key=lambda fragment: wanted[fragment.data_files()[0].path])
    names = list(columns) if columns is not None else dataset.schema.names
    return fragments, pa.schema([dataset.schema.field(name) for name in names])


def missing_files(root: Path, snapshot: Snapshot) -> list[str]:
    """Files of a version that are gone or of another size, found without reading them."""
    manifest = version_file(root, snapshot.table, snapshot.version)
    if not manifest.exists():
        return [str(manifest)]
    files = [(data_file(root, snapshot.table, shard.name), shard) for shard in snapshot.shards]
    return [str(file) for file, shard in files if _damage(file, shard, check=False)]


def _open(path: Path, version: int) -> Any:
    _check_manifests(path)
    if version not in versions(path):
        raise TableDamaged(f"{path} has no version {version}; run its stage again")
    try:
        return lance.dataset(str(path), version=version)
    except (OSError, ValueError) as error:
        raise TableDamaged(f"{path} version {version} does not open: {error}") from error


def _damage(file: Path, shard: Shard, *, check: bool) -> str:
    if not file.exists():
        return "is missing"
    state = file.stat()
    if state.st_size != shard.size:
        return f"has {state.st_size} bytes, {shard.size} were written"
    if check and _known_sha256(file, state.st_mtime_ns, state.st_size) != shard.sha256:
        return "has another checksum than when it was written"
    return ""


@lru_cache(maxsize=4096)
def _known_sha256(file: Path, _modified: int, _size: int) -> str:
    """A file that was not touched is summed once a process."""
    return sha256_of(file)


def _check_manifests(path: Path) -> None:
    empty = empty_manifests(path)
    if empty:
        raise TableDamaged(
            f"{empty[0]} is empty (a machine died while writing it): delete this file and run "
            "the stage again"
        )


def _content(shards: Sequence[Shard]) -> str:
    """In their order: who reads the first rows only, or rows by number, reads others in another."""
    return digest([[shard.name, shard.sha256] for shard in shards])
