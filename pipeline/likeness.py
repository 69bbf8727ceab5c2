"""Likeness: do two captions say the same but for small changes?

In:    pairs of captions, in the order in which they are met.
Out:   yes or no, the same whatever pairs follow.

Small is: letters, punctuation, articles, a word put in, left out or misspelt, two words swapped,
one replaced in a long caption. Large is, whatever the letters say: another count, another colour,
place or object; among captions from templates also any other word that these choose among.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property, lru_cache

from pipeline.concepts import COUNTS, concepts
from pipeline.signatures import SHINGLE
from pipeline.wording import essence

MIN_WORDS = 10  # from here on words count beside letters
# Where so many captions resemble earlier ones they come from templates; a word in so many of these
# is a choice there, not a slip.
TEMPLATE_SHARE = 0.15
COMMON_SHARE, COMMON_TIMES = 0.01, 10


class Likeness:
    """Compares captions and remembers which words similar captions are made of."""

    def __init__(self, similarity: float, keep_concepts: bool) -> None:
        self.similarity, self.keep_concepts = similarity, keep_concepts
        self.counts: Counter[str] = Counter()
        self.met = 0  # captions that resembled an earlier one
        self.from_templates = False

    def first_same(self, earlier: Sequence[str], caption: str, row: int) -> int | None:
        """The place of the first of `earlier`, all before `row`, that the caption repeats."""
        if not earlier:
            return None
        self.from_templates = self.met > max(COMMON_TIMES, TEMPLATE_SHARE * row)
        words = words_of(caption)
        same = (place for place, one in enumerate(earlier) if self.alike(words_of(one), words))
        found = next(same, None)
        self.counts.update(set(words.words))
        self.met += 1
        return found

    def alike(self, one: "Words", other: "Words") -> bool:
        if one.words == other.words:
            return True
        if not self.keep_concepts:
            return self._close(one, other)
        if not _swapped(one.words, other.words) and self._chosen(one, other):
            return False  # before letters are compared: templates have many such pairs
        if not self._close(one, other) or one.counts != other.counts:  # "a cat" is one
            return False
        return _swapped(one.words, other.words) or _contained(one.concepts, other.concepts)

    def _close(self, one: "Words", other: "Words") -> bool:
        if _jaccard(one.shingles, other.shingles) >= self.similarity:
            return True
        if min(len(one.words), len(other.words)) < MIN_WORDS:
            return False
        return _word_jaccard(one.words, other.words) >= (1 + self.similarity) / 2

    def _chosen(self, one: "Words", other: "Words") -> bool:
        """Is a word replaced by another that the captions around choose as often?"""
        if not self.from_templates:
            return False
        lost, new = _replaced(one.words, other.words)
        least = max(COMMON_TIMES, COMMON_SHARE * self.met)
        # A misspelt word is not common.
        return bool(lost and new) and all(self.counts[word] >= least for word in lost | new)


class Words:
    """A caption's parts, worked out once, when they are asked for."""

    def __init__(self, caption: str) -> None:
        self.text = essence(caption) or caption.encode()
        self.words = self.text.decode().split()

    @cached_property
    def shingles(self) -> frozenset[bytes]:
        number = max(1, len(self.text) - SHINGLE + 1)
        return frozenset([self.text[place : place + SHINGLE] for place in range(number)])

    @cached_property
    def concepts(self) -> list[str]:
        return concepts(self.words)

    @cached_property
    def counts(self) -> list[str]:
        return sorted(word for word in self.concepts if word in COUNTS or word.isdigit())


@lru_cache(maxsize=4096)
def words_of(caption: str) -> Words:
    return Words(caption)


def _jaccard(one: frozenset[bytes], other: frozenset[bytes]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def _word_jaccard(one: list[str], other: list[str]) -> float:
    common = (Counter(one) & Counter(other)).total()
    return common / (len(one) + len(other) - common)


def _replaced(one: list[str], other: list[str]) -> tuple[set[str], set[str]]:
    """The words that stand in place of each other; of lists of one length, place by place."""
    if len(one) != len(other):
        return set(Counter(one) - Counter(other)), set(Counter(other) - Counter(one))
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    return {a for a, _ in pairs}, {b for _, b in pairs}


def _contained(one: Sequence[str], other: Sequence[str]) -> bool:
    """Is the shorter list the longer one with words left out?"""
    shorter, longer = sorted((one, other), key=len)
    rest = iter(longer)
    return all(word in rest for word in shorter)


def _swapped(one: Sequence[str], other: Sequence[str]) -> bool:
    """Do they differ in the order of two neighbours only?"""
    if len(one) != len(other):
        return False
    places = [place for place in range(len(one)) if one[place] != other[place]]
    return (
        len(places) == 2
        and places[1] == places[0] + 1
        and (one[places[0]], one[places[1]]) == (other[places[1]], other[places[0]])
    )
