"""Screening: which of the rows that were read are kept, and why the others are not.

In:    the readings of all sources, in their order; blocked words and benchmark prompts.
Out:   for every row a reason ("" when kept) and what it matches: the id of the caption it repeats,
       the place of a prompt, a blocked word. The first reason found stands.
Rerun: a pure function of the rows; without a selection, of a row and those before it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import caption_sources, duplicates, signatures
from pipeline.config import CaptionsConfig, DecontaminationConfig
from pipeline.readings import Reading
from pipeline.signatures import Signatures, signatures_of
from pipeline.wording import essences, gist, normalise

TOO_SHORT, TOO_LONG = "too short", "too long"
FOREIGN, BLOCKED = "not in an allowed language", "blocked word"
DUPLICATE, NEAR_DUPLICATE = "duplicate", "near duplicate"
BENCHMARK, NOT_SELECTED = "benchmark prompt", "not selected"
TERMS_PER_PATTERN = 100
SHORT_CHARACTERS = 120  # from here on signatures find what nearly equals a prompt

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]
Prompts = Sequence[tuple[str, str]]  # text and place


class Captions(Sequence[str]):
    """Texts that stay in the files they were read to; `rows` of them, in this order."""

    def __init__(self, column: pa.ChunkedArray, rows: Rows) -> None:
        self.column, self.rows = column, rows
        self.starts = np.cumsum([0, *(len(chunk) for chunk in column.chunks)])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        row = self.rows[index]
        chunk = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.column.chunk(chunk)[int(row - self.starts[chunk])].as_py()

    def __iter__(self) -> Iterator[str]:
        cuts = np.searchsorted(self.rows, self.starts)  # rows are ascending
        for number, chunk in enumerate(self.column.chunks):
            own = self.rows[cuts[number] : cuts[number + 1]] - self.starts[number]
            yield from chunk.take(pa.array(own)).to_pylist()


class Screened:
    """The rows of all sources with what was decided of each."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self.readings = {reading.source: reading for reading in readings}
        ends = np.cumsum([0, *(len(reading.rows) for reading in readings)])
        self.starts = dict(zip(self.readings, ends[:-1].tolist(), strict=True))
        self.table = pa.concat_tables([reading.rows for reading in readings])
        self.reasons = [""]
        self.codes: NDArray[np.int16] = np.zeros(len(self.table), np.int16)
        self.matches: dict[int, str] = {}

    def left(self) -> Rows:
        """The rows that nothing was found against."""
        return np.flatnonzero(self.codes == 0)

    def captions(self, rows: Rows) -> Captions:
        return Captions(self.table["caption"], rows)

    def reject(self, rows: Rows, reason: str) -> None:
        """Rows that have a reason already keep it."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        free = rows[self.codes[rows] == 0]
        self.codes[free] = self.reasons.index(reason)

    def reason_of(self, rows: slice) -> pa.StringArray:
        return pa.array(self.reasons).take(pa.array(self.codes[rows]))

    def match_of(self, rows: slice) -> pa.StringArray:
        return pa.array([self.matches.get(row, "") for row in range(rows.start, rows.stop)])


def screen(
    readings: Sequence[Reading],
    config: CaptionsConfig,
    terms: Sequence[str] = (),
    prompts: Prompts = (),
) -> Screened:
    """Every row with its reason, but for the selection."""
    screened = Screened(readings)
    _reject_unread(screened)
    lengths = pc.utf8_length(screened.table["caption"]).to_numpy()
    screened.reject(np.flatnonzero(lengths < config.min_characters), TOO_SHORT)
    screened.reject(np.flatnonzero(lengths > config.max_characters), TOO_LONG)
    screened.reject(np.flatnonzero(screened.table["foreign"].to_numpy()), FOREIGN)
    _reject_blocked(screened, terms)
    _reject_duplicates(screened)
    if config.near_duplicates or config.decontamination:
        _reject_near(screened, config, prompts)
    return screened


def _reject_unread(screened: Screened) -> None:
    encoded = screened.table["reason"].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes = encoded.indices.to_numpy()
    for code, reason in enumerate(encoded.dictionary.to_pylist()):
        if reason:
            screened.reject(np.flatnonzero(codes == code), reason)


def _reject_blocked(screened: Screened, terms: Sequence[str]) -> None:
    rows = screened.left()
    found = blocked(screened.table["caption"].take(pa.array(rows)), terms) if terms else {}
    for index, term in found.items():
        screened.matches[int(rows[index])] = term
    screened.reject(rows[sorted(found)], BLOCKED)


def blocked(captions: pa.ChunkedArray, terms: Sequence[str]) -> dict[int, str]:
    """The captions with a blocked word or phrase in them, whatever its case, and the first one."""
    found: dict[int, str] = {}
    for first in range(0, len(terms), TERMS_PER_PATTERN):
        inside = "|".join(_escaped(term) for term in terms[first : first + TERMS_PER_PATTERN])
        pattern = rf"(?i)(?:^|[^\pL\pN])(?P<term>{inside})(?:$|[^\pL\pN])"
        rows = np.flatnonzero(pc.match_substring_regex(captions, pattern).to_numpy())
        matches = pc.extract_regex(captions.take(pa.array(rows)), pattern).to_pylist()
        for row, match in zip(rows.tolist(), matches, strict=True):
            found.setdefault(row, match["term"].casefold())
    return found


def _escaped(term: str) -> str:
    """Letters and digits as they are, all else as a code point, for RE2."""
    return "".join(c if c.isalnum() or c == " " else f"\\x{{{ord(c):x}}}" for c in term)


def _reject_duplicates(screened: Screened) -> None:
    rows = screened.left()
    ids = screened.table["caption_id"].take(pa.array(rows)).combine_chunks()
    _, firsts = np.unique(_numbers(ids), return_index=True)
    repeated = np.ones(len(rows), bool)
    repeated[firsts] = False
    screened.reject(rows[repeated], DUPLICATE)


def _numbers(ids: pa.StringArray) -> NDArray[np.uint64]:
    """Ids of sixteen hex digits as numbers; the digits stand in one buffer."""
    digits = ids.buffers()[2]
    if digits is None:
        return np.empty(0, np.uint64)
    text = memoryview(digits)[16 * ids.offset : 16 * (ids.offset + len(ids))]
    return np.frombuffer(bytes.fromhex(str(text, "ascii")), ">u8")


def _reject_near(screened: Screened, config: CaptionsConfig, prompts: Prompts) -> None:
    rows = screened.left()
    texts = screened.captions(rows)
    marks = signatures_of(texts)
    if config.decontamination and prompts:
        found = against(prompts, texts, marks, config.decontamination)
        for index, place in found.items():
            screened.matches[int(rows[index])] = place
        screened.reject(rows[list(found)], BENCHMARK)
        stay = screened.codes[rows] == 0
        rows, marks = rows[stay], marks.take(stay)
        texts = screened.captions(rows)
    if config.near_duplicates:
        similarity, keep = config.near_duplicates.similarity, config.near_duplicates.keep_concepts
        repeats = duplicates.repeats(texts, marks, similarity, keep_concepts=keep)
        ids = screened.table["caption_id"]
        for index, earlier in repeats.items():
            screened.matches[int(rows[index])] = ids[int(rows[earlier])].as_py()
        screened.reject(rows[sorted(repeats)], NEAR_DUPLICATE)


def against(
    prompts: Prompts,
    captions: Sequence[str],
    marks: Signatures,
    config: DecontaminationConfig,
) -> dict[int, str]:
    """The captions that equal or nearly equal a prompt, each with the prompt's place."""
    texts = [text for text, _ in prompts]
    together = marks.after(signatures_of(texts))
    found = duplicates.repeats(
        _Joined(texts, captions),
        together,
        config.similarity,
        keep_concepts=False,
        prompts=len(texts),
    )
    near = {row - len(texts): prompts[prompt][1] for row, prompt in found.items()}
    return _same_gist(prompts, captions) | near


def _same_gist(prompts: Prompts, captions: Iterable[str]) -> dict[int, str]:
    """Short captions that say what a prompt says; so few letters are no basis for a similarity."""
    places: dict[bytes, str] = {}
    texts = essences([text for text, _ in prompts])
    for text, (_, place) in zip(texts, prompts, strict=True):
        places.setdefault(gist(text), place)
    places.pop(b"", None)
    short = [(row, text) for row, text in enumerate(captions) if len(text) <= SHORT_CHARACTERS]
    found = zip(short, essences([text for _, text in short]), strict=True)
    return {row: places[said] for (row, _), text in found if (said := gist(text)) in places}


def unwanted(captions: Sequence[str], config: CaptionsConfig) -> set[int]:
    """Which of a few new captions must not be kept: blocked words, benchmark prompts."""
    if not captions:
        return set()
    found = set(blocked(pa.chunked_array([captions]), blocked_terms(config.blocklist)))
    prompts = benchmark_prompts(config.decontamination)
    if config.decontamination and prompts:
        found |= set(against(prompts, captions, signatures_of(captions), config.decontamination))
    return found


class _Joined(Sequence[str]):
    def __init__(self, one: Sequence[str], other: Sequence[str]) -> None:
        self.one, self.other = one, other

    def __len__(self) -> int:
        return len(self.one) + len(self.other)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.one[index] if index < len(self.one) else self.other[index - len(self.one)]


# --- what is given in files ---------------------------------------------------------------------


def blocked_terms(paths: Sequence[str]) -> list[str]:
    """The words and phrases of the files, normalised, each once."""
    terms: dict[str, None] = {}
    for path in paths:
        if not Path(path).is_file():
            raise ValueError(f"captions.blocklist: the file {path} is not there")
        for line in Path(path).read_text("utf-8").splitlines():
            term = normalise(line.partition("#")[0])
            if term:
                terms[term] = None
    return list(terms)


def benchmark_prompts(config: DecontaminationConfig | None) -> list[tuple[str, str]]:
    """Every prompt that must not be trained on, with where it stands; each once."""
    found: dict[str, str] = {}
    for prompts in config.prompts if config else ():
        source = caption_sources.build(prompts)
        for row in caption_sources.all_rows(source):
            if row.text is not None:
                found.setdefault(normalise(row.text), f"{prompts.name} {row.place}")
    return list(found.items())


def missing(config: CaptionsConfig) -> list[str]:
    """What this machine lacks to screen, one sentence each."""
    lacking = [
        f"captions.blocklist: the file {path} is not there"
        for path in config.blocklist
        if not Path(path).is_file()
    ]
    for prompts in config.decontamination.prompts if config.decontamination else ():
        lacking += caption_sources.missing(prompts)
    if config.near_duplicates or config.decontamination:
        lacking += signatures.missing()
    return lacking


def inputs(config: CaptionsConfig) -> Mapping[str, object]:
    """What the files above hold, for the name of a version."""
    prompts = config.decontamination.prompts if config.decontamination else ()
    near = config.near_duplicates or config.decontamination
    return {
        "terms": blocked_terms(config.blocklist),
        "prompts": [caption_sources.build(each).fingerprint() for each in prompts],
        "signatures": signatures.version() if near else "",
    }
