"""What a person sees of the captions: counts by source, lengths, concepts, diversity, examples.

In:    a snapshot of `captions`.
Out:   its `Description`. Whole columns are counted, not rows: a million captions are few.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import diversity, plots
from pipeline.captions import STAGE, cautions, count, spread
from pipeline.concepts import KINDS, kinds_of
from pipeline.config import CaptionsConfig, DiversityConfig, RunConfig
from pipeline.description import Description, Grid, Plot
from pipeline.diversity import Numbers
from pipeline.embeddings import embed
from pipeline.screening import DUPLICATE, NEAR_DUPLICATE, NOT_SELECTED
from pipeline.tables import Snapshot, read, take
from pipeline.wording import essence

SHOWN = 12  # captions, and rejected rows, that the description quotes
MOST_CONCEPTS = 12  # of a kind, in the plot
# What is counted of every row; the other columns are read of the few that are shown.
COUNTED = ("caption", "original", "source", "licence", "kind", "keep", "reason")
MOST_WORDS = 120  # of the longest bar in the plot of lengths


def describe_captions(config: RunConfig, snapshot: Snapshot) -> Description:
    table = read(config.root, snapshot, COUNTED)
    kept = table["keep"].to_numpy()
    words = _words(table["caption"])
    tables = [
        _by_source(table, words),
        _by_kind(table["kind"].to_numpy()[kept], words[kept]),
        _quoted(table, np.flatnonzero(kept)),
        _refused(config, snapshot, table),
    ]
    drawn: tuple[Plot, ...] = ()
    if config.captions.diversity:
        more, drawn = _diversity(table, config.captions.diversity, config.device)
        tables[2:2] = more
    counted = pc.value_counts(table["reason"].filter(pc.invert(table["keep"]))).to_pylist()
    return Description(
        stage=STAGE,
        title="Captions",
        rows_in=len(table),
        kept=int(kept.sum()),
        rejected=int((~kept).sum()),
        reasons=dict(sorted((each["values"], each["counts"]) for each in counted)),
        facts=_facts(config.captions, snapshot, table),
        tables=tuple(tables),
        plots=drawn,
    )


def _facts(config: CaptionsConfig, snapshot: Snapshot, table: pa.Table) -> dict[str, str]:
    counted = pc.value_counts(table["licence"].filter(table["keep"])).to_pylist()
    licences = sorted((each["values"], each["counts"]) for each in counted)
    facts = {
        "table": snapshot.label,
        "content": snapshot.content,
        "licences": ", ".join(f"{name} ({rows:,})" for name, rows in licences),
        "characters": f"{config.min_characters} to {config.max_characters}",
        "long": f"{config.long_words} words or more",
    }
    for number, caution in enumerate(cautions(config), 1):
        facts[f"caution {number}"] = caution
    if config.decontamination:
        facts["benchmarks"] = ", ".join(each.name for each in config.decontamination.prompts)
    if config.selection and config.selection.short_share is not None:
        facts["short captions"] = _mix(config.selection.short_share, table)
    if config.rewriter:
        rewritten = pc.sum(pc.not_equal(table["original"], "")).as_py() or 0
        facts["rewritten"] = f"{rewritten:,} by {config.rewriter.model}"
    return facts


def _mix(wanted: float, table: pa.Table) -> str:
    """The share of short ones that was chosen; where it is another than asked for, why."""
    kept = table.filter(table["keep"])
    if not len(kept):
        return "none"
    # Rewritten ones were short when they were chosen.
    short = pc.or_(pc.equal(kept["kind"], "short"), pc.not_equal(kept["original"], ""))
    share = pc.sum(short).as_py() / len(kept)
    told = f"{share:.1%} of those chosen"
    if abs(share - wanted) * len(kept) <= 1:
        return told
    lacking = "long" if share > wanted else "short"
    return f"{told}, {wanted:.1%} asked for: there are no more {lacking} ones"


def _words(captions: pa.ChunkedArray) -> Numbers:
    """Captions in normal form have one space between words."""
    spaces = pc.count_substring(captions, " ").to_numpy()
    return np.where(pc.equal(captions, "").to_numpy(), 0, spaces + 1).astype(np.int64)


def _by_source(table: pa.Table, words: Numbers) -> Grid:
    columns = {name: table[name] for name in ("source", "licence", "keep", "reason")}
    groups = pa.table(columns | {"words": words}).group_by(["source", "licence", "keep", "reason"])
    counts = groups.aggregate([("words", "count"), ("words", "sum")]).to_pylist()
    cells = []
    for source in table["source"].unique().to_pylist():
        own = [each for each in counts if each["source"] == source]
        of = {each["reason"]: each["words_count"] for each in own}
        total, kept = sum(of.values()), of.get("", 0)
        doubles, near = of.get(DUPLICATE, 0), of.get(NEAR_DUPLICATE, 0)
        mean = sum(each["words_sum"] for each in own if each["keep"]) / max(1, kept)
        numbers = (total, kept, doubles, near, total - kept - doubles - near)
        cells.append((source, own[0]["licence"], *(f"{n:,}" for n in numbers), f"{mean:.1f}"))
    header = ("source", "licence", "rows", "kept", "duplicate", "near", "other", "mean words")
    return Grid("Sources", header, tuple(cells))


def _by_kind(kinds: Numbers, words: Numbers) -> Grid:
    cells = []
    for kind in ("short", "long"):
        own = words[kinds == kind]
        if len(own):
            figures = (len(own), own.min(), int(np.median(own)), own.max())
            cells.append((kind, *(f"{n:,}" for n in figures), f"{len(own) / len(words):.1%}"))
    header = ("length class", "captions", "fewest words", "median", "most", "of those kept")
    return Grid("Length classes", header, tuple(cells))


def _quoted(table: pa.Table, kept: Numbers) -> Grid:
    shown = table.take(kept[spread(len(kept), SHOWN)]).to_pylist()
    cells = tuple((row["source"], row["kind"], _shortened(row["caption"])) for row in shown)
    return Grid("Some captions", ("source", "kind", "caption"), cells)


def _refused(config: RunConfig, snapshot: Snapshot, table: pa.Table) -> Grid:
    """A few of each reason."""
    reasons = sorted(set(table["reason"].unique().to_pylist()) - {""})
    most = max(2, SHOWN // max(1, len(reasons)))
    shown = []
    for reason in reasons:
        own = np.flatnonzero(pc.equal(table["reason"], reason).to_numpy())
        shown += own[spread(len(own), most)].tolist()
    rows = take(config.root, snapshot, shown, ["place", "reason", "match", "caption"]).to_pylist()
    cells = tuple(
        (row["place"], row["reason"], row["match"], _shortened(row["caption"])) for row in rows
    )
    return Grid("Some rejected rows", ("place", "reason", "matches", "caption"), cells)


def _shortened(caption: str, most: int = 160) -> str:
    return caption if len(caption) <= most else caption[: most - 3] + "..."


# --- diversity ----------------------------------------------------------------------------------


def _diversity(
    table: pa.Table, config: DiversityConfig, device: str
) -> tuple[list[Grid], tuple[Plot, ...]]:
    """Measures over a sample of all captions that could have been kept."""
    could = pc.or_(table["keep"], pc.equal(table["reason"], NOT_SELECTED)).to_numpy()
    rows = np.flatnonzero(could)
    sample = table.take(rows[spread(len(rows), config.sample)])
    kept = sample["keep"].to_numpy()
    captions = sample["caption"].to_pylist()
    vectors = embed(captions, config.embedding, config.seed, device)
    clusters = diversity.clusters_of(vectors, config.clusters, config.seed)
    sources = sample["source"].to_numpy(zero_copy_only=False)
    groups = [("kept", kept)]
    if not kept.all():
        groups.append(("kept and not selected", np.ones(len(kept), bool)))
        chance = _by_chance(kept, sample["kind"].to_numpy(), config.seed)
        groups.append(("as many by chance", chance))
    groups += [(name, kept & (sources == name)) for name in count(sources[kept].tolist())]
    cells = []
    for name, rows in groups:
        reached, even = diversity.coverage(clusters, rows)
        vendi = diversity.vendi_score(vectors[rows])
        cells.append((name, f"{rows.sum():,}", f"{vendi:.1f}", f"{reached:.1%}", f"{even:.1%}"))
    header = ("captions", "measured", "Vendi score", "clusters reached", "effective clusters")
    chosen = [caption for caption, keep in zip(captions, kept, strict=True) if keep]
    balance, bars = _concepts(chosen)
    lengths = Plot("Words a caption", plots.bars(*_lengths(chosen), "words", "captions"))
    return [Grid("Diversity", header, tuple(cells)), balance], (lengths, bars)


def _by_chance(kept: NDArray[np.bool_], kinds: NDArray[np.str_], seed: int) -> NDArray[np.bool_]:
    """As many of each length class as were kept, any of them: what a choice must surpass."""
    generator, chosen = np.random.default_rng(seed), np.zeros(len(kept), bool)
    for kind in ("short", "long"):
        own = np.flatnonzero(kinds == kind)
        chosen[generator.permutation(own)[: int(kept[own].sum())]] = True
    return chosen


def _lengths(captions: Sequence[str]) -> tuple[list[str], list[float]]:
    """How many captions have 1 to 5 words, 6 to 10, ...; the last bar holds all longer ones."""
    words = np.minimum([len(caption.split()) for caption in captions], MOST_WORDS)
    counts = np.bincount((words - 1) // 5)
    names = [f"{5 * place + 1}" for place in range(len(counts))]
    return names, counts.astype(float).tolist()


def _concepts(captions: Sequence[str]) -> tuple[Grid, Plot]:
    """How many captions name a concept of each kind, and which."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    named: Counter[str] = Counter()
    for caption in captions:
        for kind, words in kinds_of(essence(caption).decode().split()).items():
            found[kind].update(words)
            named[kind] += bool(words)
    cells = []
    for kind, counts in found.items():
        shares = np.array(list(counts.values()), float) / max(1, counts.total())
        effective = float(np.exp(-(shares * np.log(shares)).sum())) if counts else 0.0
        share = f"{named[kind] / max(1, len(captions)):.1%}"
        most = ", ".join(word for word, _ in counts.most_common(5))
        cells.append((kind, share, f"{len(counts):,}", f"{effective:.1f}", most))
    header = ("concepts", "captions with one", "different", "effective", "most frequent")
    groups = {kind: dict(counts.most_common(MOST_CONCEPTS)) for kind, counts in found.items()}
    bars = plots.grouped_bars(groups, "captions")
    return Grid("Concept balance", header, tuple(cells)), Plot("Most frequent concepts", bars)
