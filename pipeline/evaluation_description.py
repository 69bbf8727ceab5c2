"""What a person sees of an evaluation: intervals, comparisons, right and wrong pictures.

In:    a version of the table `scores`, and the versions before it.
Out:   a `Description`. Its first sheet has the same prompts and seeds of the last two checkpoints;
       then a sheet a task, right beside wrong, each wrong one with the reason.
Rerun: the same versions give the same description.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipeline import standings
from pipeline.captions import count, spread
from pipeline.description import Description, Grid, Picture, Plot
from pipeline.fidelity import table as fidelity
from pipeline.geneval import published
from pipeline.pictures import Cell, contact_sheet, side_by_side
from pipeline.plots import checkpoint_bars
from pipeline.roots import root_of
from pipeline.significance import MEAN, Comparison, mean_interval, share_interval
from pipeline.standings import Intervals
from pipeline.tables import Snapshot, missing_files, read, take

STAGE = "evaluate"
SHOWN = 18  # pairs of pictures of the first sheet
SHOWN_A_SIDE = 6  # right and wrong pictures of a task
MOST_EARLIER = 12  # checkpoints of earlier versions in the table
STRICT = "Right, and no object too many"
WRONG = "wrong"  # where the evaluator names no reason
GENEVAL = ("geneval", "geneval_rewritten")  # evaluators whose published scores are known
PICTURE = ("image", "prompt", "correct", "reason", "words")


def describe(
    root: str,
    snapshot: Snapshot,
    history: Sequence[Snapshot],
    facts: Mapping[str, str],
    measures: Snapshot | None = None,
) -> Description:
    columns = [*standings.COLUMNS, standings.EXTRA, "reason", "judge"]
    table = read(root, snapshot, columns, check=False)
    rows = zip(table["correct"].to_pylist(), table["reason"].to_pylist(), strict=True)
    wrong = [reason or WRONG for correct, reason in rows if not correct]
    shares, strict = standings.intervals(table), standings.strict(table)
    return Description(
        stage=STAGE,
        title="Evaluation",
        rows_in=len(table),
        kept=len(table) - len(wrong),
        rejected=len(wrong),
        reasons=count(wrong),
        facts={**facts, "judges": ", ".join(table["judge"].unique().to_pylist())},
        tables=(
            shares_grid(shares),
            *_comparisons(list(standings.comparisons(table))),
            shares_grid(standings.intervals(strict), STRICT),
            *_comparisons(list(standings.comparisons(strict)), f"{STRICT}: "),
            _extras(table),
            *_earlier(root, snapshot, history, table),
            *_published(table),
            *([fidelity.grid(read(root, measures, check=False))] if measures else []),
            _by_reason(table),
        ),
        pictures=(_before_and_after(root, snapshot, table), *_tasks(root, snapshot, table)),
        plots=_bars(shares),
    )


# --- tables -------------------------------------------------------------------------------------


def shares_grid(shares: Intervals, title: str = "Share of correct pictures") -> Grid:
    """A row a task; the difference is that of the last two checkpoints."""
    names = list(shares)
    cells = []
    for task in shares[names[-1]] if names else ():
        told = [str(shares[name][task]) if task in shares[name] else "-" for name in names]
        change: tuple[str, ...] = ()
        if len(names) > 1:
            before, after = (shares[name].get(task) for name in names[-2:])
            change = (f"{after.share - before.share:+.3f}" if before and after else "-",)
        cells.append((task, *told, *change))
    header = ("task", *names, *(("difference",) if len(names) > 1 else ()))
    return Grid(f"{title}, with 95 % intervals", header, tuple(cells))


def _extras(table: pa.Table) -> Grid:
    """What the rules of most tasks forgive, by task and checkpoint."""
    names, tasks = (table[key].unique().to_pylist() for key in ("checkpoint", "task"))
    means = table.group_by(["task", "checkpoint"]).aggregate([(standings.EXTRA, "mean")])
    found = {(row["task"], row["checkpoint"]): row for row in means.to_pylist()}
    cells = tuple(
        (task, *(f"{found[task, name][f'{standings.EXTRA}_mean']:.2f}" for name in names))
        for task in tasks
    )
    return Grid("Objects too many a picture", ("task", *names), cells)


def _comparisons(rows: Sequence[Comparison], before_title: str = "") -> tuple[Grid, ...]:
    """A table for each checkpoint before the last."""
    header = ("task", "difference", "95 % interval", "gained", "lost", "p", "McNemar's p")
    grids = []
    for before in dict.fromkeys(row.before for row in rows):
        own = [row for row in rows if row.before == before]
        title = f"{before_title}{own[0].after} against {before}: same prompts and seeds, paired"
        cells = [
            (
                row.task,
                f"{row.difference:+.3f}",
                f"{row.low:+.3f} to {row.high:+.3f}",
                f"{row.gained:,}",
                f"{row.lost:,}",
                chance(row.p),
                chance(row.mcnemar_p),
            )
            for row in own
        ]
        grids.append(Grid(title, header, tuple(cells)))
    return tuple(grids)


def chance(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"


def _earlier(
    root: str, snapshot: Snapshot, history: Sequence[Snapshot], table: pa.Table
) -> tuple[Grid, ...]:
    """Checkpoints of the run that were measured before and are no part of this version."""
    seen = {shard.name for shard in snapshot.shards}
    last = list(standings.answers(table).items())[-1]
    cells: list[tuple[str, ...]] = []
    for version in history:  # the newest first
        if len(cells) >= MOST_EARLIER:
            break
        shards = [shard.name for shard in version.shards if shard.name not in seen]
        seen |= set(shards)
        if shards and not missing_files(root_of(root), version):
            old = read(root, version, list(standings.COLUMNS), shards, check=False)
            cells += _against(f"{version.version}", old, last)
    header = ("version", "checkpoint", "evaluator", "mean", f"{last[0]} here less it", "p")
    grid = Grid("Measured earlier in this run", header, tuple(cells[:MOST_EARLIER]))
    return (grid,) if cells else ()


def _against(
    version: str,
    old: pa.Table,
    last: tuple[str, Mapping[str, Mapping[str, standings.Answers]]],
) -> Iterator[tuple[str, ...]]:
    for name, by_evaluator in standings.answers(old).items():
        for evaluator, tasks in by_evaluator.items():
            mean = mean_interval([share_interval(a.right, a.prompts) for a in tasks.values()])
            one = {evaluator: last[1].get(evaluator, {})}
            rows = list(standings.compared((name, last[0]), {evaluator: tasks}, one))
            told = ("-", "-")
            # Of other prompts, or of a part of them, a difference says nothing.
            if len(rows) == len(one[evaluator]) + 1 and rows[-1].task == MEAN:
                told = (f"{rows[-1].difference:+.3f}", chance(rows[-1].p))
            yield (version, name, evaluator, str(mean), *told)


def _published(table: pa.Table) -> Iterator[Grid]:
    """The run's checkpoints above what others report, where the benchmark is the same."""
    tasks = published.Row._fields[1:-1]
    for evaluator in GENEVAL:
        ours = [
            (f"this run, {name}", *_row_of(by_evaluator[evaluator], tasks))
            for name, by_evaluator in standings.answers(table).items()
            if evaluator in by_evaluator
        ]
        theirs = [(row.model, *(f"{share:.2f}" for share in row[1:])) for row in published.ROWS]
        if ours:
            wording = "rewritten prompts, theirs raw" if evaluator != GENEVAL[0] else "raw prompts"
            title = f"Beside published GenEval scores ({wording}; theirs: {published.SOURCE})"
            yield Grid(title, ("model", *tasks, "overall"), (*ours, *theirs))


def _row_of(answers: Mapping[str, standings.Answers], tasks: Sequence[str]) -> list[str]:
    shares = {task: float(np.mean(each.right)) for task, each in answers.items()}
    mean = sum(shares.values()) / len(shares)
    return [f"{shares[task]:.2f}" if task in shares else "-" for task in tasks] + [f"{mean:.2f}"]


def _by_reason(table: pa.Table) -> Grid:
    """What goes wrong, by checkpoint."""
    names = table["checkpoint"].unique().to_pylist()
    why: dict[str, dict[str, int]] = {}
    for name, reason in zip(
        table["checkpoint"].to_pylist(), table["reason"].to_pylist(), strict=True
    ):
        if reason:
            counts = why.setdefault(reason, {})
            counts[name] = counts.get(name, 0) + 1
    cells = tuple(
        (reason, *(f"{why[reason].get(name, 0):,}" for name in names)) for reason in sorted(why)
    )
    return Grid("What went wrong", ("reason", *names), cells)


# --- pictures -----------------------------------------------------------------------------------


def _bars(shares: Intervals) -> tuple[Plot, ...]:
    if not shares:
        return ()
    bars = {
        name: {task: (each.share, each.low, each.high) for task, each in tasks.items()}
        for name, tasks in shares.items()
    }
    return (Plot("Correct pictures, with 95 % intervals", checkpoint_bars(bars)),)


def _before_and_after(root: str, snapshot: Snapshot, table: pa.Table) -> Picture:
    """The same prompts and seeds of the last two checkpoints; of one, more of its own."""
    names = table["checkpoint"].unique().to_pylist()[-2:]
    firsts = table["image_index"].to_numpy() == 0
    checkpoint = table["checkpoint"].to_numpy(zero_copy_only=False)
    sides = []
    for name in names:
        rows = np.flatnonzero(firsts & (checkpoint == name))
        chosen = [int(rows[index]) for index in spread(len(rows), SHOWN)]
        sides.append(_cells(root, snapshot, chosen))
    if len(names) < 2:
        return Picture(f"Drawn by {names[0]}", contact_sheet(sides[0], 6))
    sheet = side_by_side(names[0].capitalize(), sides[0], names[1].capitalize(), sides[1])
    return Picture(f"Same prompts and seeds, {names[0]} and {names[1]}", sheet)


def _tasks(root: str, snapshot: Snapshot, table: pa.Table) -> Iterator[Picture]:
    """A sheet a task of the last checkpoint: right pictures beside wrong ones."""
    last = table["checkpoint"].to_pylist()[-1]
    keys = list(zip(table["evaluator"].to_pylist(), table["task"].to_pylist(), strict=True))
    several = len({evaluator for evaluator, _ in keys}) > 1
    own = table["checkpoint"].to_numpy(zero_copy_only=False) == last
    correct = table["correct"].to_numpy(zero_copy_only=False)
    for key in dict.fromkeys(keys):
        here = own & np.array([each == key for each in keys])
        right, wrong = np.flatnonzero(here & correct), np.flatnonzero(here & ~correct)
        sides = [
            _cells(root, snapshot, [int(rows[n]) for n in spread(len(rows), SHOWN_A_SIDE)])
            for rows in (right, wrong)
        ]
        titles = [f"Right: {len(right):,}", f"Wrong: {len(wrong):,}"]
        name = ": ".join(key) if several else key[1]
        sheet = side_by_side(titles[0], sides[0], titles[1], sides[1])
        yield Picture(f"{name.replace('_', ' ').capitalize()}, {last}", sheet)


def _cells(root: str, snapshot: Snapshot, rows: Sequence[int]) -> list[Cell]:
    shown = take(root, snapshot, rows, PICTURE).to_pylist()
    return [
        Cell(
            row["image"],
            row["prompt"],
            "" if row["correct"] else row["words"] or row["reason"],
            row["correct"],
        )
        for row in shown
    ]
