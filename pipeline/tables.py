"""Tables: what stages leave behind. The only door to Lance.

In:    rows under a `Table` contract, shard by shard, from any process.
Out:   <root>/tables/<table>-<fingerprint>.lance: one data file a shard, one version an input, and
       <root>/snapshots/<table>-<fingerprint>-<inputs>.json, written last.
Rerun: a whole shard is kept after its checksum was compared, a damaged one goes to
       <root>/quarantine/ and is made again; committing the same shards again changes nothing.

The table is named by who makes its rows (contract, code version, values), the version by what
they were made from. Lance itself neither flushes to disk nor keeps checksums: both are done here.

In a bucket a shard is written near (`pipeline.roots`), then put under its name in one request that
says its checksum, and the commit is Lance's conditional put: of two machines one is first, and the
other commits upon it. Files that are read whole come near first (`pipeline.mirrors`).
"""

import fcntl
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from uuid import uuid4

import lance
import pyarrow as pa
from lance.file import LanceFileReader, LanceFileWriter
from lance.fragment import DataFile, FragmentMetadata

from pipeline.blocks import Blocks
from pipeline.buckets import ROWS, SHA256, SIZE, BucketPath, settings
from pipeline.chunks import CHUNK_ROWS, NO_COMPRESSION, check_contract, chunked, reproducible
from pipeline.disk import writing
from pipeline.growing import summed_beside
from pipeline.mirrors import Damaged, at_hand, is_mirrored, mirrored
from pipeline.places import (
    data_file,
    empty_manifests,
    remove,
    set_aside,
    snapshot_file,
    sum_file,
    table_path,
    version_file,
    versions,
)
from pipeline.roots import each, fetched, known_sha256, near, root_of, unusable
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
    "TableFolder", "Work", "at_hand", "batches", "committed", "data_file", "digest",
    "give_back_memory", "identifier", "layout", "missing_files", "read", "take",
]  # fmt: skip
FORMAT = "2.2"
STALE_SECONDS = 24 * 3600
MEMORY = Blocks()  # of chunks that are being written
COMMITS = 20  # times that other machines may be faster before something else is wrong
SHARD_FIELDS = {field.name for field in fields(Shard)}
SNAPSHOT_FIELDS = {field.name for field in fields(Snapshot)}

logger = logging.getLogger(__name__)


class TableDamaged(ValueError):  # noqa: N818
    """A file of a table is not what was written; the sentence names it."""


class TableFolder:
    """One table on disk, from its contract and the values that shape its rows."""

    def __init__(self, root: Path | str, table: Table, values: object) -> None:
        check_contract(table)
        self.root, self.table = root_of(root), table
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
        _require_store(self.root)
        here = near(self.path)
        with writing(here):
            (here / "data").mkdir(parents=True, exist_ok=True)
            (here / "sums").mkdir(exist_ok=True)
        with ExitStack() as stack:
            # A folder of its own, where the file that grows is found whatever Lance calls it.
            own = here / "data" / f".{name}.{uuid4().hex}.part"
            stack.callback(remove, own)
            with writing(here):
                own.mkdir()
            return self._publish(own / "rows.part", name, batches)

    def _publish(
        self, part: Path, name: str, batches: Iterable[pa.RecordBatch | pa.Table]
    ) -> Shard:
        schema, file = reproducible(self.table.schema), str(part.absolute())
        with writing(near(self.path)), summed_beside(part.parent) as finished:
            with LanceFileWriter(file, schema=schema, version=FORMAT) as writer:
                for chunk in chunked(batches, schema, self.name, MEMORY):
                    writer.write_batch(chunk)
                    del chunk  # its memory is the next one's
            flush(part)
            sha256 = finished()
        rows = int(LanceFileReader(file).metadata().num_rows)
        shard = Shard(name, rows, sha256, part.stat().st_size, self.name)
        if isinstance(self.path, BucketPath):
            return self._put(part, shard)
        with self._locked():
            twin = self.whole_shard(name)
            if twin is not None:  # another process was faster
                return twin
            # The sum before the file: a file that has its name has its sum.
            write_sealed(self._sum(name), asdict(shard))
            part.replace(data_file(self.root, self.name, name))
            flush(self.path / "data")
        return shard

    def _put(self, part: Path, shard: Shard) -> Shard:
        """The shard in its bucket. The first to put it stays, whose sum is said with it at once."""
        place = data_file(self.root, self.name, shard.name)
        assert isinstance(place, BucketPath)
        while not place.send(part, shard.sha256, shard.rows, absent=True):
            twin = self.whole_shard(shard.name)
            if twin is not None:  # another machine was faster
                return twin
        write_sealed(self._sum(shard.name), asdict(shard))
        part.replace(near(place))  # the next stage on this machine need not bring it
        return shard

    def whole_shard(self, name: str) -> Shard | None:
        """The shard if its file is there and its checksum right; a damaged one is moved away.

        Of one in a bucket the store's word is taken that it is what was put; `verify` reads it.
        """
        path = data_file(self.root, self.name, name)
        # Looked for once: what another writer puts there meanwhile is not damaged.
        if isinstance(path, BucketPath):
            try:
                shard, whole = self._said(path)
            except FileNotFoundError:
                return None
        elif path.exists():
            shard = self.stated_shard(name)
            whole = shard is not None and not _damage(path, shard, check=True)
        else:
            return None
        if whole:
            return shard
        try:
            place = set_aside(self.root, path)
        except FileNotFoundError:  # another process was faster
            return None
        logger.warning("%s is damaged: moved to %s, to be made again", path, place)
        return None

    def stated_shard(self, name: str) -> Shard | None:
        """What was noted of the shard when it was written; the file itself is not looked at."""
        try:
            values = read_sealed(self._sum(name), SHARD_FIELDS)
        except FileNotFoundError:
            values = None
        return Shard(**values) if values else None

    def _said(self, path: BucketPath) -> tuple[Shard | None, bool]:
        """What was noted of an object, and whether it says the same of itself.

        FileNotFoundError where it is not.
        """
        says, shard = path.stated(), self.stated_shard(path.stem)
        size = int(says[SIZE])
        if shard is None and {SHA256, ROWS} <= says.keys():  # its writer died before it noted it
            shard = Shard(path.stem, int(says[ROWS]), says[SHA256], size, self.name)
            write_sealed(self._sum(path.stem), asdict(shard))
        now = says.get(SHA256) or sha256_of(path)
        return shard, shard is not None and (shard.size, shard.sha256) == (size, now)

    def read_shard(self, shard: Shard) -> pa.Table:
        """The rows of a shard that was just written and may not be committed yet."""
        path = fetched(data_file(self.root, self.name, shard.name))
        return LanceFileReader(str(path.absolute())).read_all().to_table().cast(self.table.schema)

    # --- versions -------------------------------------------------------------------------------

    def commit(self, shards: Sequence[Shard], inputs: str) -> Snapshot:
        """One version of these shards, in this order, tagged `inputs`. Twice is once."""
        _require_store(self.root)
        for path, _ in _misfits(self.root, self.name, shards, check=False):
            raise TableDamaged(f"{path} is not the file that was written; make it again")
        content = _content(shards)
        with writing(self.path):
            (near(self.path) / "data").mkdir(parents=True, exist_ok=True)
            with self._locked():
                _check_manifests(self.path)
                version = self._committed(shards, inputs, content)
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

    def _committed(self, shards: Sequence[Shard], inputs: str, content: str) -> int:
        """The version of these shards. No lock spans machines: who was second looks again."""
        for attempt in range(COMMITS):
            found = self._version_of(inputs, content)
            if found is not None:
                return found
            before = versions(self.path)
            try:
                return self._commit(shards, inputs, content)
            except OSError:
                alone = not isinstance(self.path, BucketPath) or versions(self.path) == before
                if alone or attempt == COMMITS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

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
        dataset = lance.LanceDataset.commit(
            str(self.path), transaction, max_retries=0, storage_options=_options(self.path)
        )
        return int(dataset.version)

    def _version_of(self, inputs: str, content: str) -> int | None:
        """A version committed before, perhaps by a process that died before it wrote its record."""
        there = versions(self.path)
        if not there:
            return None
        dataset = lance.dataset(str(self.path), storage_options=_options(self.path))
        for version in there:  # some may be gone: retention removes what nobody names
            given = dataset.read_transaction(version).transaction_properties
            if given == {"inputs": inputs, "content": content}:
                return version
        return None

    def _tag(self, inputs: str, version: int) -> None:
        dataset = lance.dataset(str(self.path), storage_options=_options(self.path))
        tags = dataset.tags.list()
        if inputs not in tags:
            try:
                dataset.tags.create(inputs, version)
            except ValueError:  # another machine tagged the same meanwhile
                if dataset.tags.list().get(inputs, {}).get("version") != version:
                    raise
        elif tags[inputs]["version"] != version:
            dataset.tags.update(inputs, version)

    def _sweep(self) -> None:
        """Remove what killed writers left, once no writer can still be at it."""
        for pattern in (".*.part", ".tmp*"):
            for path in (near(self.path) / "data").glob(pattern):
                with suppress(FileNotFoundError):  # its writer is done with it
                    # Of what is in a folder: its own time does not tell that a file in it grows.
                    times = [each.stat().st_mtime for each in (path, *path.rglob("*"))]
                    if time.time() - max(times) > STALE_SECONDS:
                        remove(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time publishes; the lock goes with the process. On this machine."""
        with (near(self.path) / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _sum(self, name: str) -> Path:
        return sum_file(self.root, self.name, name)

    def _record(self, inputs: str) -> Path:
        return snapshot_file(self.root, self.name, inputs)


def give_back_memory() -> None:
    """What columns took that were read for a moment, and chunks that were written, goes back to the
    machine, not to a pool."""
    MEMORY.clear()
    pa.default_memory_pool().release_unused()


def committed(root: Path, names: str = "*") -> list[Snapshot]:
    """Every version that was committed under a root, of the tables whose names match."""
    paths = sorted((root / "snapshots").glob(f"{names}.json"))
    read = each(root, lambda path: read_sealed(path, SNAPSHOT_FIELDS), paths)
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
    with _near_enough(root, snapshot, shards, check) as place:
        fragments, schema = _fragments(place, snapshot, columns, shards, check)
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
    with _near_enough(root, snapshot, shards, check=True) as place:
        fragments, schema = _fragments(place, snapshot, columns, shards, check=True)
        for fragment in fragments:
            for batch in fragment.to_batches(columns=schema.names, batch_size=CHUNK_ROWS):
                yield pa.Table.from_batches([batch]).cast(schema)


def take(
    root: Path | str, snapshot: Snapshot, rows: Sequence[int], columns: Sequence[str]
) -> pa.Table:
    """A few rows by number, in the order asked for."""
    ordered = sorted(set(rows))  # several times faster than any other order
    place = {row: number for number, row in enumerate(ordered)}
    with _near_enough(root, snapshot, None, check=False) as where:
        dataset = _open(table_path(where, snapshot.table), snapshot.version)
        if not ordered:
            return pa.schema([dataset.schema.field(name) for name in columns]).empty_table()
        table = dataset.take(ordered, columns=list(columns))
    return table.take(pa.array([place[row] for row in rows], pa.int64()))


@contextmanager
def _near_enough(
    root: Path | str, snapshot: Snapshot, shards: Sequence[str] | None, check: bool
) -> Iterator[Path]:
    """The root to read from: of a bucket the mirror, unless a few values are read unchecked."""
    place = root_of(root)
    if not isinstance(place, BucketPath) or not (check or is_mirrored(place, snapshot)):
        yield place
        return
    chosen = [s for s in snapshot.shards if shards is None or s.name in shards]
    with ExitStack() as stack:
        try:
            here = stack.enter_context(mirrored(place, snapshot, chosen))
        except Damaged as damaged:
            raise TableDamaged(f"{damaged}; verify moves it aside, to be made again") from damaged
        yield here


def layout(file: Path) -> Any:
    """Lance's own description of a data file on this disk: rows, and the pages of each column."""
    return LanceFileReader(str(file)).metadata()


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
    for file, damage in _misfits(root, snapshot.table, chosen, check=check):
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
    misfits = _misfits(root, snapshot.table, snapshot.shards, check=False)
    return [str(file) for file, _ in misfits]


def _open(path: Path, version: int) -> Any:
    _check_manifests(path)
    if version not in versions(path):
        raise TableDamaged(f"{path} has no version {version}; run its stage again")
    try:
        return lance.dataset(str(path), version=version, storage_options=_options(path))
    except (OSError, ValueError) as error:
        raise TableDamaged(f"{path} version {version} does not open: {error}") from error


def _options(path: Path) -> dict[str, str] | None:
    """What Lance must know of the store of a table."""
    return dict(settings()) if isinstance(path, BucketPath) else None


def _require_store(root: Path) -> None:
    """ValueError where a bucket cannot hold tables, before anything is made for it."""
    if isinstance(root, BucketPath) and (why := unusable(root)):
        raise ValueError(f"root: {root} cannot be used: {why}")


def _misfits(
    root: Path, table: str, shards: Sequence[Shard], *, check: bool
) -> Iterator[tuple[Path, str]]:
    """Data files that are not what was written, each with what is wrong with it."""
    folder = data_file(root, table, "").parent
    # A request a thousand files, not one a file.
    sizes = folder.sizes() if isinstance(folder, BucketPath) and not check else None
    for shard in shards:
        file = data_file(root, table, shard.name)
        if sizes is None:
            damage = _damage(file, shard, check=check)
        else:
            damage = _misfit(sizes.get(file.name), shard)
        if damage:
            yield file, damage


def _misfit(size: int | None, shard: Shard) -> str:
    if size is None:
        return "is missing"
    return "" if size == shard.size else f"has {size} bytes, {shard.size} were written"


def _damage(file: Path, shard: Shard, *, check: bool) -> str:
    if not file.exists():
        return "is missing"
    if damage := _misfit(file.stat().st_size, shard):
        return damage
    if check and _sum_now(file) != shard.sha256:
        return "has another checksum than when it was written"
    return ""


def _sum_now(file: Path) -> str:
    if not isinstance(file, BucketPath):
        return known_sha256(file)
    return file.stated().get(SHA256) or sha256_of(file)


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
