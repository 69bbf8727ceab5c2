"""The ledger: what each stage of a run was asked, what it left, from what, and who made it.

In:    a run and the manifests of its stages.
Out:   <root>/ledger/<stage>-<id>.json and a copy, written last, sealed: the stage's values, the
       entries that it read, its tables at versions and checkpoints, the models that its values
       name, the checksums of the files that are no shards, and by which code it was made.
Rerun: the same values over the same inputs are the same entry; only when it was last asked for is
       written anew. What was made again is summed again.

An entry together with those that it read, down to the captions, is the record of a run.
"""

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.description import description_folder
from pipeline.maker import maker
from pipeline.places import snapshot_file, tag_file, version_file
from pipeline.preflight import SECTIONS
from pipeline.roots import each, root_of
from pipeline.seals import identifier, read_sealed, sha256_of, write_sealed
from pipeline.snapshots import Manifest, Snapshot
from pipeline.upstream import READS
from pipeline.values import models_of


@dataclass(frozen=True)
class Entry:
    """One stage of one run, as it was asked."""

    name: str
    stage: str
    run: str
    values: Mapping[str, Any]  # the stage's section of the run
    inputs: Mapping[str, str]  # stage to the name of its entry
    manifest: Manifest
    models: Mapping[str, Mapping[str, str]]  # place among the values to name, revision, licence ...
    files: Mapping[str, str]  # place below the root to sha256
    maker: Mapping[str, str]  # code, commit, packages; empty where it was found already made
    written: str  # UTC
    asked: str  # UTC, of the last run that used it

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Entry":
        return Entry(**values | {"manifest": Manifest.from_json(values["manifest"])})

    @property
    def tables(self) -> dict[str, Snapshot]:
        return dict(self.manifest.snapshots)


def enter(
    config: RunConfig, manifests: Mapping[str, Manifest], made: Collection[str] = ()
) -> dict[str, str]:
    """Write the entries that are missing, those of `made` anew; the names by stage.

    The last of `manifests` is the one that was asked for: the others stand above it.
    """
    names = _further(root_of(config.root), manifests)
    stages = [stage for stage in SECTIONS if stage in manifests]
    for stage in stages:
        entry = _asked(config, stage, manifests[stage], names)
        names[stage] = entry.name
        there = _read(root_of(config.root), entry.name)
        if there is None or stage == stages[-1]:
            _write(root_of(config.root), entry, there, stage in made)
    return names


def entries(root: Path) -> list[Entry]:
    """All whole entries, those asked for last at the end."""
    names = {path.stem for path in (root / "ledger").rglob("*.json")}
    found = each(root, lambda name: _read(root, name), sorted(names))
    return sorted((e for e in found if e is not None), key=lambda entry: (entry.asked, entry.name))


def entry_named(root: Path, name: str) -> Entry:
    """By its name or the start of it; ValueError where there is none or more than one."""
    if exact := _read(root, name):
        return exact
    alike = [entry for entry in entries(root) if entry.name.startswith(name)]
    if len(alike) != 1:
        known = [entry.name for entry in entries(root)][-8:]
        raise ValueError(
            f"{len(alike)} entries of the ledger in {root} are called {name!r}; the last are "
            f"{known}"
        )
    return alike[0]


def mend(root: Path, name: str) -> bool:
    """Write an entry again from its copy, or the copy from the entry; False where both are lost."""
    values = _values(root, name)
    for path in _paths(root, name) if values else ():
        write_sealed(path, values or {})
    return values is not None


def newest(root: Path, run: str | None = None, stage: str | None = None) -> Entry:
    """The entry asked for last; of several stages asked for by one run that is its last stage."""
    found = [
        entry
        for entry in entries(root)
        if run in (None, entry.run) and stage in (None, entry.stage)
    ]
    if not found:
        what = f"{stage or 'a stage'} of {run or 'any run'}"
        raise ValueError(f"the ledger in {root} has no entry of {what}: run it once, it enters it")
    return found[-1]


def with_inputs(root: Path, entry: Entry) -> dict[str, Entry]:
    """The entry and all that it came from, by stage, each after what it read.

    A second entry of a stage, as of a later round of alignment, stands under its own name.
    """
    found: dict[str, Entry] = {}
    seen: set[str] = set()

    def visit(label: str, entry: Entry) -> None:
        seen.add(entry.name)
        for key, name in entry.inputs.items():
            above = _read(root, name) if name not in seen else None
            if above is not None:
                visit(key, above)
        found[label if label not in found else entry.name] = entry

    visit(entry.stage, entry)
    return found


def section_of(label: str) -> str:
    """Under which name the values of an entry stand in the run; a later round's own otherwise."""
    return SECTIONS.get(label, label)


def forget(root: Path, places: Collection[str]) -> None:
    """Take files that are gone out of every entry; whoever makes them again enters them again."""
    for entry in entries(root):
        left = {place: total for place, total in entry.files.items() if place not in places}
        if left != entry.files:
            _save(root, replace(entry, files=left))


# --- one entry ----------------------------------------------------------------------------------


def _further(root: Path, manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """Entries of what is handed beside the stages, such as an earlier round: they are there."""
    further = {label: m for label, m in manifests.items() if label not in SECTIONS}
    there = entries(root) if further else []
    made = {(entry.stage, entry.manifest.content): entry.name for entry in there}
    found = {label: made.get((m.stage, m.content)) for label, m in further.items()}
    return {label: name for label, name in found.items() if name is not None}


def _asked(config: RunConfig, stage: str, manifest: Manifest, names: Mapping[str, str]) -> Entry:
    section = SECTIONS[stage]
    values = getattr(config, section).model_dump(mode="json")
    models = models_of(section, values)
    reads = [above for above in names if above in READS[stage] or above not in SECTIONS]
    inputs = {above: names[above] for above in reads}
    # Not the version: a table that lost a manifest is committed again under another number.
    left = [[s.table, s.tag, s.content] for s in manifest.snapshots.values()]
    known = identifier(config.name, values, models, inputs, left, manifest.content)
    now = datetime.datetime.now(datetime.UTC).isoformat()
    name = f"{stage}-{known}"
    return Entry(
        name, stage, config.name, values, inputs, manifest, models, {}, {}, written=now, asked=now
    )


def _write(root: Path, entry: Entry, there: Entry | None, made: bool) -> None:
    known = {} if made or there is None else dict(there.files)
    files = known | _sums(root, _places(root, entry), known)
    _check_weights(root, entry.manifest, files)
    if there is not None:
        entry = replace(entry, maker=there.maker, written=there.written)
    elif made:
        entry = replace(entry, maker=maker())
    else:  # by whoever made the same before
        same = [e for e in entries(root) if e.manifest.content == entry.manifest.content]
        entry = replace(entry, maker=next((e.maker for e in same if e.maker), {}))
    _save(root, replace(entry, files=files))


def _save(root: Path, entry: Entry) -> None:
    """Twice: who made something is known nowhere else."""
    for path in _paths(root, entry.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, asdict(entry))


def _read(root: Path, name: str) -> Entry | None:
    values = _values(root, name)
    if values is None:
        return None
    entry = Entry.from_json(values)
    snapshots = {key: _current(root, each) for key, each in entry.manifest.snapshots.items()}
    return replace(entry, manifest=replace(entry.manifest, snapshots=snapshots))


def _values(root: Path, name: str) -> dict[str, Any] | None:
    """Of the entry, or of its copy where the entry is damaged."""
    for path in _paths(root, name):
        try:
            values = read_sealed(path)
        except FileNotFoundError:
            continue
        if values is not None:
            return values
    return None


def _paths(root: Path, name: str) -> tuple[Path, Path]:
    return root / "ledger" / f"{name}.json", root / "ledger" / "copies" / f"{name}.json"


def _current(root: Path, snapshot: Snapshot) -> Snapshot:
    """The same rows under the number that they have now."""
    path = snapshot_file(root, snapshot.table, snapshot.tag)
    try:
        values = read_sealed(path, {f.name for f in fields(Snapshot)})
    except FileNotFoundError:
        values = None
    now = Snapshot.from_json(values) if values else snapshot
    return now if now.content == snapshot.content else snapshot


# --- files that are no shards -------------------------------------------------------------------


def _places(root: Path, entry: Entry) -> list[Path]:
    """Lance's own files of each version, a finished training's files, the description."""
    found: list[Path] = []
    for snapshot in entry.manifest.snapshots.values():
        found.append(version_file(root, snapshot.table, snapshot.version))
        found.append(tag_file(root, snapshot.table, snapshot.tag))
        transactions = found[-2].parent.parent / "_transactions"
        found += transactions.glob(f"{snapshot.version - 1}-*.txn")
    for folder in {Path(*Path(place).parts[:2]) for place in entry.manifest.checkpoints.values()}:
        found += [p for p in (root / folder).rglob("*") if not p.name.startswith("state-")]
    found += description_folder(root, entry.stage, entry.manifest.content).glob("*")
    return [path for path in sorted(set(found)) if path.is_file() and not _passing(root, path)]


def _passing(root: Path, path: Path) -> bool:
    """Files on their way, and what trackers write for other programs."""
    parts = path.relative_to(root).parts
    return "tracking" in parts or any(part.startswith(".") for part in parts)


def _sums(root: Path, paths: Sequence[Path], known: Collection[str]) -> dict[str, str]:
    places = {path.relative_to(root).as_posix(): path for path in paths}
    return {place: sha256_of(path) for place, path in places.items() if place not in known}


def _check_weights(root: Path, manifest: Manifest, files: Mapping[str, str]) -> None:
    """A checkpoint is entered as what was trained, never as what a disk made of it."""
    for place in manifest.checkpoints.values():
        weights = f"{place}/model.safetensors"
        if place.endswith("/final") and files.get(weights) != manifest.content:
            raise ValueError(
                f"{root / weights} has another checksum than when it was trained: "
                f"python -m pipeline.verification --root {root} moves it aside, to be made again"
            )
