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
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import lance
import pyarrow as pa
from lance.file import LanceFileReader, LanceFileWriter
from lance.fragment import DataFile, FragmentMetadata

FORMAT = "2.2"
# Rows of one write. The bytes of a data file depend on it, so it is fixed.
CHUNK_ROWS = 256
STALE_SECONDS = 24 * 3600
NO_COMPRESSION = {"lance-encoding:compression": "none"}  # for bytes that are compressed already

logger = logging.getLogger(__name__)


class TableDamaged(ValueError):  # noqa: N818
    """A file of a table is not what was written; the sentence names it."""


@dataclass(frozen=True)
class Table:
    """The contract of a table. `version` is raised by hand when the code makes other rows."""

    name: str
    version: int
    schema: pa.Schema


@dataclass(frozen=True)
class Shard:
    """One data file of a table."""

    name: str
    rows: int
    sha256: str
    size: int
    table: str = ""  # the table's folder name, without its ending


@dataclass(frozen=True)
class Snapshot:
    """A table at a version. `content` is equal exactly when the data files are."""

    table: str
    version: int
    tag: str
    content: str
    rows: int
    shards: tuple[Shard, ...]

    @property
    def label(self) -> str:
        return f"{self.table} @ version {self.version}"

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Snapshot":
        return Snapshot(**values | {"shards": tuple(Shard(**shard) for shard in values["shards"])})


@dataclass(frozen=True)
class Work:
    """One shard's worth of work; `name` derives from what it reads."""

    name: str
    sources: tuple[str, ...] = ()
    first: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Manifest:
    """What a stage left: tables at versions, checkpoints as folders relative to the root."""

    stage: str
    content: str
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(stage: str, snapshots: dict[str, Snapshot], reading: object = None) -> "Manifest":
        """`reading`: values that change what the rows mean to later stages, but not the rows."""
        contents = {name: snapshot.content for name, snapshot in snapshots.items()}
        content = digest(contents if reading is None else [contents, reading])
        return Manifest(stage, content, snapshots)

    def to_json(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Manifest":
        snapshots = {name: Snapshot.from_json(v) for name, v in values["snapshots"].items()}
        return Manifest(values["stage"], values["content"], snapshots, dict(values["checkpoints"]))


def digest(values: object) -> str:
    """The sha256 of any JSON-able values."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def identifier(*values: object) -> str:
    """Sixteen hex digits for a row or a shard, from what identifies it."""
    return digest(values)[:16]


class TableFolder:
    """One table on disk, from its contract and the values that shape its rows."""

    def __init__(self, root: Path | str, table: Table, values: object) -> None:
        _check_contract(table)
        self.root, self.table = Path(root), table
        fields = [[f.name, str(f.type), f.nullable] for f in table.schema]
        self.fingerprint = identifier(table.name, table.version, fields, values)
        self.name = f"{table.name}-{self.fingerprint}"
        self.path = _table_path(self.root, self.name)

    # --- shards ---------------------------------------------------------------------------------

    def write_shard(self, name: str, batches: Iterable[pa.RecordBatch | pa.Table]) -> Shard:
        """The shard's file, from `batches` unless it is there and whole; then they are not read."""
        there = self.whole_shard(name)
        if there is not None:
            return there
        (self.path / "data").mkdir(parents=True, exist_ok=True)
        (self.path / "sums").mkdir(exist_ok=True)
        part = self.path / "data" / f".{name}.{uuid4().hex}.part"
        with ExitStack() as stack:
            stack.callback(part.unlink, missing_ok=True)
            return self._publish(part, name, batches)

    def _publish(
        self, part: Path, name: str, batches: Iterable[pa.RecordBatch | pa.Table]
    ) -> Shard:
        schema, file = _reproducible(self.table.schema), str(part.absolute())
        with LanceFileWriter(file, schema=schema, version=FORMAT) as writer:
            for chunk in _chunks(batches, schema, self.name):
                writer.write_batch(chunk)
        _flush(part)
        rows = int(LanceFileReader(file).metadata().num_rows)
        shard = Shard(name, rows, _sha256(part), part.stat().st_size, self.name)
        with self._locked():
            twin = self.whole_shard(name)
            if twin is not None:  # another process was faster
                return twin
            # The sum before the file: a file that has its name has its sum.
            _write_json(self._sum(name), asdict(shard))
            part.replace(data_file(self.root, self.name, name))
            _flush(self.path / "data")
        return shard

    def whole_shard(self, name: str) -> Shard | None:
        """The shard if its file is there and its checksum right; a damaged one is moved away."""
        path = data_file(self.root, self.name, name)
        if not path.exists():
            return None
        shard = self.stated_shard(name)
        if shard is not None and not _damage(path, shard, check=True):
            return shard
        place = self.root / "quarantine" / f"{self.name}-{name}-{uuid4().hex[:8]}.lance"
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
        logger.warning("%s is damaged: moved to %s, to be made again", path, place)
        return None

    def stated_shard(self, name: str) -> Shard | None:
        """What was noted of the shard when it was written; the file itself is not looked at."""
        path = self._sum(name)
        values = _read_json(path) if path.exists() else None
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
        (self.path / "data").mkdir(parents=True, exist_ok=True)
        with self._locked():
            _check_manifests(self.path)
            version = self._version_of(inputs, content) or self._commit(shards, inputs, content)
            self._tag(inputs, version)
            self._sweep()
        for folder in ("_versions", "_transactions", "_refs/tags", "_refs", "."):
            _flush_folder(self.path / folder)
        rows = sum(shard.rows for shard in shards)
        snapshot = Snapshot(self.name, version, inputs, content, rows, tuple(shards))
        self._record(inputs).parent.mkdir(parents=True, exist_ok=True)
        _write_json(self._record(inputs), asdict(snapshot))
        return snapshot

    def find(self, inputs: str) -> Snapshot | None:
        """The committed version for these inputs, if all its files are there."""
        path = self._record(inputs)
        if not path.exists():
            return None
        values = _read_json(path)
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
        paths = (self.root / "snapshots").glob(f"{self.name}-*.json")
        snapshots = [Snapshot.from_json(values) for path in paths if (values := _read_json(path))]
        return sorted(snapshots, key=lambda snapshot: -snapshot.version)

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
            read_version=_latest_version(self.path),
            operation=lance.LanceOperation.Overwrite(self.table.schema, fragments),
            transaction_properties={"inputs": inputs, "content": content},
        )
        dataset = lance.LanceDataset.commit(str(self.path), transaction, max_retries=0)
        return int(dataset.version)

    def _version_of(self, inputs: str, content: str) -> int | None:
        """A version committed before, perhaps by a process that died before it wrote its record."""
        latest = _latest_version(self.path)
        if not latest:
            return None
        dataset = lance.dataset(str(self.path))
        for version in range(latest, 0, -1):
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
        return self.path / "sums" / f"{name}.json"

    def _record(self, inputs: str) -> Path:
        return self.root / "snapshots" / f"{self.name}-{inputs}.json"


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
    dataset = _open(_table_path(Path(root), snapshot.table), snapshot.version)
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
    dataset = _open(_table_path(root, snapshot.table), snapshot.version)
    wanted = {f"{shard.name}.lance": number for number, shard in enumerate(chosen)}
    fragments = [f for f in dataset.get_fragments() if f.data_files()[0].path in wanted]
    fragments.sort(key=lambda fragment: wanted[fragment.data_files()[0].path])
    names = list(columns) if columns is not None else dataset.schema.names
    return fragments, pa.schema([dataset.schema.field(name) for name in names])


def verify(root: Path | str, snapshot: Snapshot) -> list[str]:
    """Each damaged file with what is wrong with it; empty when all is well."""
    path = _table_path(Path(root), snapshot.table)
    found = [f"{file} is empty" for file in _empty_manifests(path)]
    for shard in snapshot.shards:
        file = data_file(Path(root), snapshot.table, shard.name)
        if damage := _damage(file, shard, check=True):
            found.append(f"{file} {damage}")
    return found


def data_file(root: Path, table: str, shard: str) -> Path:
    return _table_path(root, table) / "data" / f"{shard}.lance"


def missing_files(root: Path, snapshot: Snapshot) -> list[str]:
    """Files of a version that are gone or of another size, found without reading them."""
    path = _table_path(root, snapshot.table)
    if _latest_version(path) < snapshot.version:
        return [str(path / "_versions")]
    files = [(data_file(root, snapshot.table, shard.name), shard) for shard in snapshot.shards]
    return [str(file) for file, shard in files if _damage(file, shard, check=False)]


def _open(path: Path, version: int) -> Any:
    _check_manifests(path)
    if _latest_version(path) < version:
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
    return _sha256(file)


def _check_manifests(path: Path) -> None:
    empty = _empty_manifests(path)
    if empty:
        raise TableDamaged(
            f"{empty[0]} is empty (a machine died while writing it): delete this file and run "
            "the stage again"
        )


def _empty_manifests(path: Path) -> list[Path]:
    manifests = sorted((path / "_versions").glob("*.manifest"))
    return [manifest for manifest in manifests if manifest.stat().st_size == 0]


def _latest_version(path: Path) -> int:
    """0 when the table is not there. Lance names a manifest 2^64 - 1 - version."""
    names = [manifest.stem for manifest in (path / "_versions").glob("*.manifest")]
    return max((2**64 - 1 - int(name) for name in names if name.isdigit()), default=0)


# --- bytes --------------------------------------------------------------------------------------


def _chunks(
    batches: Iterable[pa.RecordBatch | pa.Table], schema: pa.Schema, table: str
) -> Iterator[pa.RecordBatch]:
    """The same rows in chunks of a fixed size, whatever sizes they came in."""
    waiting: list[pa.Table] = []
    count = 0
    for batch in batches:
        waiting.append(_conforming(batch, schema, table))
        count += batch.num_rows
        while count >= CHUNK_ROWS:
            whole = pa.concat_tables(waiting)
            yield _canonical(whole.slice(0, CHUNK_ROWS), schema)
            waiting, count = [whole.slice(CHUNK_ROWS)], count - CHUNK_ROWS
    if count:
        yield _canonical(pa.concat_tables(waiting), schema)


def _conforming(batch: pa.RecordBatch | pa.Table, schema: pa.Schema, table: str) -> pa.Table:
    rows = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
    if rows.schema.names != schema.names:
        raise ValueError(f"{table}: columns {rows.schema.names}, expected {schema.names}")
    for column in schema:
        if not column.nullable and rows[column.name].null_count:
            raise ValueError(f"{table}.{column.name}: null in a column that allows none")
    return rows.cast(schema)


def _canonical(rows: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
    """Buffers of exactly these rows: Lance also sees the bytes around a slice."""
    (batch,) = rows.combine_chunks().to_batches()
    return pa.ipc.read_record_batch(batch.serialize(), schema)


def _reproducible(schema: pa.Schema) -> pa.Schema:
    """Texts as they are: by default Lance compresses longer ones after a random sample (FSST)."""
    return pa.schema(
        [column.with_metadata(NO_COMPRESSION) if _is_text(column) else column for column in schema],
        metadata=schema.metadata,
    )


def _is_text(column: pa.Field) -> bool:
    types = pa.types
    text = types.is_string(column.type) or types.is_large_string(column.type)
    binary = types.is_binary(column.type) or types.is_large_binary(column.type)
    return (text or binary) and not column.metadata


def _check_contract(table: Table) -> None:
    """Two metadata keys are written in a random order, so files would not be reproducible."""
    metadata = [table.schema.metadata, *(column.metadata for column in table.schema)]
    assert all(len(each or {}) <= 1 for each in metadata), f"{table.name}: one metadata key a field"


def _content(shards: Sequence[Shard]) -> str:
    return digest(sorted([shard.name, shard.sha256] for shard in shards))


def _table_path(root: Path, name: str) -> Path:
    return root / "tables" / f"{name}.lance"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _flush_folder(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            if path.is_file():
                _flush(path)
        _flush(folder)


def _write_json(path: Path, values: object) -> None:
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    part.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    _flush(part)
    part.replace(path)
    _flush(path.parent)


def _read_json(path: Path) -> dict[str, Any] | None:
    """None for a file that is not JSON: an older power cut, not ours to guess about."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return values
