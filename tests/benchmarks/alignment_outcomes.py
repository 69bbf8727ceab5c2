"""What an alignment came to: each picture right or wrong, and its objects too many.

In:    rows of the table `scores` of one checkpoint; outcomes of several seeds in a JSON file.
Out:   shares, objects too many, and the paired difference to another variant, as a Markdown table.
Rerun: a file keeps what it has; an outcome of the same variant and seed is replaced.

Seeds of a variant are put together: three trainings' pictures of a prompt are pictures of that
prompt, so intervals and tests stay over prompts (`pipeline.significance`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.shapes.grammar import TASKS
from pipeline.significance import MEAN, Comparison, compare

COUNTING = "counting"  # GenEval's one task in which an object too many is wrong
DIGITS = "0123456789"


@dataclass(frozen=True)
class Outcome:
    """One training of a variant; a digit a picture, prompts in order, by task."""

    variant: str
    seed: int
    compute: float  # of the first variant's budget
    steps: int
    pairs: int
    minutes: float  # of processor time, training alone
    right: dict[str, str]
    extra: dict[str, str]  # objects too many, 9 at most
    pictures: int  # a prompt

    def share(self, task: str) -> float:
        if task == MEAN:
            return mean(self.share(each) for each in self.right)
        return mean(map(int, self.right[task]))

    def strict(self, task: str) -> float:
        """Share of pictures that are right and have no object too many."""
        if task == MEAN:
            return mean(self.strict(each) for each in self.right)
        both = zip(self.right[task], self.extra[task], strict=True)
        return mean(right == "1" and extra == "0" for right, extra in both)

    def extras(self) -> float:
        """Objects too many a picture, over the tasks whose rule forgives them."""
        forgiving = [task for task in self.extra if task != COUNTING]
        return mean(mean(map(int, self.extra[task])) for task in forgiving)


def digits_of(table: pa.Table) -> tuple[dict[str, str], dict[str, str], int]:
    """Right, objects too many, and pictures a prompt, of the rows of one checkpoint."""
    right = dict.fromkeys(TASKS, "")
    extra = dict(right)
    order = [("prompt_index", "ascending"), ("image_index", "ascending")]
    for row in table.sort_by(order).to_pylist():
        right[row["task"]] += str(int(row["correct"]))
        extra[row["task"]] += DIGITS[min(9, row["extra_objects"])]
    pictures = len(table) // len(set(table["prompt_index"].to_pylist()))
    return right, extra, pictures


# --- a file of outcomes ---------------------------------------------------------------------------


def read_outcomes(path: Path) -> dict[str, list[Outcome]]:
    """Variant to its seeds, in order."""
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    found: dict[str, dict[int, Outcome]] = {}
    for line in lines:
        one = Outcome(**json.loads(line))
        found.setdefault(one.variant, {})[one.seed] = one
    return {name: [seeds[s] for s in sorted(seeds)] for name, seeds in found.items()}


def add_outcome(path: Path, outcome: Outcome) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


# --- tables ---------------------------------------------------------------------------------------


def against(before: Sequence[Outcome], after: Sequence[Outcome], value: str) -> list[Comparison]:
    """Paired over prompts, by task and in the mean; `value`: right or strict."""
    sides = [_answers(outcomes, value) for outcomes in (before, after)]
    names = (before[0].variant, after[0].variant)
    pictures = before[0].pictures
    if any(one.pictures != pictures for one in (*before, *after)) or len(before) != len(after):
        raise ValueError(f"{names}: other numbers of pictures or seeds; nothing to pair")
    prompts = {
        task: np.tile(np.arange(len(before[0].right[task])) // pictures, len(before))
        for task in before[0].right
    }
    return compare(names, *sides, prompts)


def _answers(outcomes: Sequence[Outcome], value: str) -> dict[str, Any]:
    def of(one: Outcome, task: str) -> Any:
        right = np.array(list(one.right[task])) == "1"
        if value == "right":
            return right
        return right & (np.array(list(one.extra[task])) == "0")

    return {task: np.concatenate([of(one, task) for one in outcomes]) for task in TASKS}


def tables(found: Mapping[str, Sequence[Outcome]], named: str) -> Iterator[str]:
    """The shares of each variant; then each one's difference to the variant `named`."""
    yield from _shares(found)
    if named in found:
        yield ""
        yield from _differences(found, named)


def _shares(found: Mapping[str, Sequence[Outcome]]) -> Iterator[str]:
    header = ["alignment", "seeds", "compute", "mean", "each seed", *TASKS]
    header += ["right and none too many", "objects too many"]
    yield from _rows([header], rule=True)
    for name, seeds in found.items():
        each = ", ".join(f"{one.share(MEAN):.3f}" for one in seeds)
        cells = [name, str(len(seeds)), f"{seeds[0].compute:.2f}"]
        cells += [f"{mean(one.share(MEAN) for one in seeds):.3f}", each]
        cells += [f"{mean(one.share(task) for one in seeds):.3f}" for task in TASKS]
        cells += [f"{mean(one.strict(MEAN) for one in seeds):.3f}"]
        cells += [f"{mean(one.extras() for one in seeds):.2f}"]
        yield from _rows([cells])


def _differences(found: Mapping[str, Sequence[Outcome]], named: str) -> Iterator[str]:
    columns = (("right", MEAN), ("right", "position"), ("strict", MEAN), ("strict", "position"))
    header = [f"to {named}", "mean", "p", "position", "p", "strict mean", "p", "strict position"]
    yield from _rows([[*header, "p"]], rule=True)
    for name, seeds in found.items():
        if name == named:
            continue
        number = min(len(seeds), len(found[named]))
        cells = [name]
        for value, task in columns:
            rows = against(found[named][:number], seeds[:number], value)
            row = next(row for row in rows if row.task == task)
            cells += [f"{row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f})", f"{row.p:.4f}"]
        yield from _rows([cells])


def _rows(rows: Sequence[Sequence[str]], *, rule: bool = False) -> Iterator[str]:
    for cells in rows:
        yield "| " + " | ".join(cells) + " |"
        if rule:
            yield "|---" * len(cells) + "|"
