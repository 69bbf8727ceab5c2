"""The captions stage on a million generated captions and, where they are at hand, real ones.

    python tests/benchmarks/captions.py [--rows 1000000] [--data ../shared/data] [--folder DIR]

Writes JSON lines with planted exact and near duplicates, runs the stage as the flow does (plan,
make every shard, commit, describe) in a process of its own, then once more with nothing new, and
prints Markdown tables: rates, peak memory, recall of what was planted, what else was removed.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SEED = 0
EXACT_SHARE, NEAR_SHARE = 0.05, 0.05
SYLLABLES = re.findall(
    r"\w+", "ba co di fu ga ho ki la me no pu ra si te vo wi zu bre cla dro fli gri sto tra"
)
COLOURS = ["red", "green", "blue", "yellow", "black", "white", "brown", "purple", "orange", "pink"]
COUNTS = ["two", "three", "four", "five", "several"]
PLACES = ["above", "below", "beside", "behind", "in front of", "to the left of", "on top of"]
LIGHT = ["at dawn", "in soft light", "under neon", "in heavy rain", "at night", "in bright sun"]


def words(number: int, generator: random.Random) -> list[str]:
    """Invented words of two to four syllables, each once."""
    found: dict[str, None] = {}
    while len(found) < number:
        found["".join(generator.choices(SYLLABLES, k=generator.randint(2, 4)))] = None
    return list(found)


def sentences(number: int) -> Iterator[str]:
    """Different captions of 8 to 60 words from a vocabulary of 6,000."""
    generator = random.Random(SEED)
    nouns, adjectives, verbs = (words(n, generator) for n in (4000, 1500, 500))
    pick = generator.choice

    def thing() -> str:
        noun = f"{pick(adjectives)} {pick(nouns)}"
        kind = generator.random()
        if kind < 0.3:
            return f"a {pick(COLOURS)} {noun}"
        return f"{pick(COUNTS)} {noun}s" if kind < 0.45 else f"a {noun}"

    seen: set[str] = set()
    while len(seen) < number:
        clauses = [f"{thing()} {pick(verbs)}s {pick(PLACES)} {thing()}"]
        for _ in range(generator.choice((0, 0, 1, 1, 2, 4))):
            clauses.append(f"{thing()} {pick(verbs)}s near {thing()}")
        caption = f"{', while '.join(clauses)} {pick(LIGHT)}"
        if caption not in seen:
            seen.add(caption)
            yield caption


EDITS: dict[str, Callable[[str, random.Random], str]] = {
    "letter case": lambda text, _: text.upper(),
    "punctuation": lambda text, _: text.replace(" ", ", ", 1) + ".",
    "articles": lambda text, _: re.sub(r"\ba\b", "the", text),
    "photo of": lambda text, _: f"A photo of {text}",
    "typing error": lambda text, r: _at_word(text, r, lambda w: w[0] + w[2] + w[1] + w[3:]),
    "word put in": lambda text, r: _at_word(text, r, lambda w: f"very {w}"),
    "word left out": lambda text, r: _at_word(text, r, lambda w: ""),
    "word replaced": lambda text, r: _at_word(text, r, lambda w: "quiet"),
}
LONG_ENOUGH = {"word replaced": 25, "word left out": 12}  # words; in a shorter one it is another


def _at_word(text: str, generator: random.Random, edit: Callable[[str], str]) -> str:
    parts = text.split()
    special = {*COLOURS, *COUNTS, *" ".join(PLACES).split(), "near"}
    places = [n for n, word in enumerate(parts) if len(word) > 3 and word not in special]
    place = generator.choice(places)
    return " ".join([*parts[:place], edit(parts[place]), *parts[place + 1 :]])


def write(path: Path, number: int) -> dict[int, tuple[str, str]]:
    """The file; of each planted row, by line, what was done and the text it is made from."""
    generator = random.Random(SEED + 1)
    planted: dict[int, tuple[str, str]] = {}
    recent: list[str] = []
    line = 0
    with path.open("w", encoding="utf-8") as file:
        for caption in sentences(round(number * (1 - EXACT_SHARE - NEAR_SHARE))):
            rows = [("", caption, caption)]
            if recent and generator.random() < EXACT_SHARE / (1 - EXACT_SHARE - NEAR_SHARE):
                earlier = generator.choice(recent)
                rows.append(("exact", earlier, earlier))
            if recent and generator.random() < NEAR_SHARE / (1 - EXACT_SHARE - NEAR_SHARE):
                edit = generator.choice(list(EDITS))
                fits = [c for c in recent if len(c.split()) >= LONG_ENOUGH.get(edit, 0)]
                if fits:
                    earlier = generator.choice(fits)
                    rows.append((edit, EDITS[edit](earlier, generator), earlier))
            for kind, text, made_from in rows:
                line += 1
                file.write(json.dumps({"prompt": text}) + "\n")
                if kind:
                    planted[line] = (kind, made_from)
            recent.append(caption)
            if len(recent) > 2000:
                del recent[generator.randrange(1000)]
    return planted


def harvest(root: str, sources: list[dict[str, Any]], stage: dict[str, Any]) -> dict[str, float]:
    """What the flow does for the stage, timed."""
    import pyarrow

    pyarrow.set_cpu_count(2)
    from pipeline import captions
    from pipeline.config import RunConfig

    values = {"sources": sources, "rows_per_shard": 20_000, **stage}
    run = RunConfig.model_validate({"name": "bench", "root": root, "captions": values})
    clock = [time.perf_counter()]
    found = captions.find(run, {})
    clock.append(time.perf_counter())
    if found is None:
        works = captions.plan(run, {})
        clock.append(time.perf_counter())
        shards = [s for work in works for s in captions.make(run, {}, work, lambda rows: None)]
        clock.append(time.perf_counter())
        found = captions.commit(run, {}, shards)
    clock.append(time.perf_counter())
    harvested = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    captions.describe(run, {}, found)
    rows = found.snapshots["captions"].rows
    return {
        "rows": rows,
        "seconds": clock[-1] - clock[0],
        "plan": clock[2] - clock[1],
        "describe": time.perf_counter() - clock[-1],
        "cpu": sum(os.times()[:2]),
        "peak": harvested,
        "peak with description": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def in_process(*args: Any) -> dict[str, float]:
    """In a fresh process, so that its peak memory is the stage's own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(harvest, args)


def recall(root: str, planted: dict[int, tuple[str, str]]) -> None:
    """Prints how many of the planted rows are gone, and how many others."""
    from pipeline.tables import Snapshot, read

    record = next((Path(root) / "snapshots").glob("captions-*.json"))
    snapshot = Snapshot.from_json(json.loads(record.read_text()))
    table = read(root, snapshot, ["source", "place", "keep", "reason"])
    gone, others, total = defaultdict[str, Counter[bool]](Counter), Counter[str](), 0
    rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
    for source, place, keep, reason in rows:
        line = int(place.rpartition(":")[2]) if source == "generated" else 0
        if line in planted:
            gone[planted[line][0]][not keep] += 1
        elif source == "generated":
            total += 1
            others[reason] += not keep
    print("\n| planted | rows | removed |\n|---|---|---|")
    for kind, counts in sorted(gone.items()):
        print(f"| {kind} | {counts.total():,} | {counts[True] / counts.total():.2%} |")
    near = sum((counts for kind, counts in gone.items() if kind != "exact"), Counter())
    print(f"| all near | {near.total():,} | {near[True] / max(1, near.total()):.2%} |")
    lost = sum(others.values())
    print(f"| not planted | {total:,} | {lost / max(1, total):.4%} ({lost}) |")


def real(folder: Path) -> list[dict[str, Any]]:
    """The real sets, as the run `real` names them."""
    from pipeline.config import load_run

    os.environ["LIGHTGEN_DATA"] = str(folder)
    return [source.model_dump() for source in load_run("real").captions.sources]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path, default=os.environ.get("LIGHTGEN_DATA"))
    parser.add_argument("--folder", type=Path, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "generated.jsonl"
        planted = write(path, args.rows)
        generated = {
            "kind": "files",
            "name": "generated",
            "paths": [str(path)],
            "format": "jsonl",
            "column": "prompt",
            "licence": "none",
        }
        sources = [generated, *(real(args.data) if args.data else [])]
        print(
            "| stage | rows | seconds | captions/s | CPU s | of it plan | describe s "
            "| peak GiB | peak with description |\n|---|---|---|---|---|---|---|---|---|"
        )
        near = {"near_duplicates": {}}
        for name, root, stage in (
            ("exact", "exact", {}),
            ("exact and near", "near", near),
            ("the same again", "near", near),
        ):
            told = in_process(str(Path(folder) / root), sources, stage)
            print(
                f"| {name} | {told['rows']:,.0f} | {told['seconds']:.1f} "
                f"| {told['rows'] / told['seconds']:,.0f} | {told['cpu']:.0f} | {told['plan']:.1f} "
                f"| {told['describe']:.1f} | {told['peak']:.2f} "
                f"| {told['peak with description']:.2f} |",
                flush=True,
            )
        recall(str(Path(folder) / "near"), planted)


if __name__ == "__main__":
    main()
