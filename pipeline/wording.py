"""Wording: one spelling for what reads the same, and what is left when only form is taken away.

In:    a caption as it stands in a source.
Out:   its normal form and the id of it; its words without case, punctuation and articles.
"""

import hashlib
import re
import string
import unicodedata
from collections.abc import Sequence
from itertools import chain

import numpy as np

# Invisible marks that scripts and emoji need; all others of their class are dropped.
JOINERS = "\u200c\u200d"
ARTICLES = {b"a", b"an", b"the"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_GAPS = string.punctuation + string.whitespace
_PLAIN = bytes.maketrans(
    (_GAPS + string.ascii_uppercase).encode(),
    (" " * len(_GAPS) + string.ascii_lowercase).encode(),
)
_BETWEEN = "\x80"  # no letter of ASCII, so it can stand between captions that are
_SPACE = ord(" ")
AT_ONCE = 1024  # captions in one text: it stays in a core's cache
MEDIA = (b"photo of ", b"picture of ", b"image of ")  # at the head of a caption they say nothing
# Words that praise a picture or name what it is, and say nothing of what it shows.
FILLERS = frozenset(
    b"""photo photograph photography picture image shot of very high highly best quality resolution
    detailed realistic photorealistic hyperrealistic professional masterpiece ultra hd uhd 4k
    8k""".split()
)
_WORD = re.compile(r"\w+")


def normalise(text: str) -> str:
    """One spelling for what reads the same: composed letters, no invisible marks, plain spaces."""
    if text.isascii():  # nearly all captions, and ten times faster
        if text.isprintable() and "  " not in text and text.strip(" ") == text:
            return text
        return " ".join(_CONTROL.sub(" ", text).split())
    text = text.encode("utf-8", "replace").decode("utf-8")  # half characters become "?"
    spaced = "".join(_plain(letter) for letter in unicodedata.normalize("NFC", text))
    return unicodedata.normalize("NFC", " ".join(spaced.split()))


def _plain(letter: str) -> str:
    category = unicodedata.category(letter)
    if category == "Cc":
        return " "
    return "" if category == "Cf" and letter not in JOINERS else letter


def caption_id_of(caption: str) -> str:
    return hashlib.sha256(caption.encode()).digest()[:8].hex()


def essence(caption: str) -> bytes:
    """Words in UTF-8, lower case, a space apart, without punctuation, articles, "photo of"."""
    if caption.isascii():
        words = caption.encode().translate(_PLAIN).split()
    else:
        words = [word.encode() for word in _WORD.findall(caption.casefold())]
    return _without_medium(b" ".join([word for word in words if word not in ARTICLES]))


def essences(captions: Sequence[str]) -> list[bytes]:
    """The essence of each caption; a thousand at once cost a third of one by one."""
    plain = [caption for caption in captions if caption.isascii()]
    pieces = [plain[first : first + AT_ONCE] for first in range(0, len(plain), AT_ONCE)]
    found = chain.from_iterable(map(_plain_essences, pieces))
    return [
        _without_medium(next(found)) if caption.isascii() else essence(caption)
        for caption in captions
    ]


def gist(text: bytes) -> bytes:
    """Of an essence, what is left without praise, and with two letters swapped as without."""
    words = [word for word in text.split() if word not in FILLERS]
    return b" ".join([word[:1] + bytes(sorted(word[1:])) for word in words])


def _plain_essences(captions: Sequence[str]) -> list[bytes]:
    """All in one text, whose letters are kept or not."""
    text = f" {f' {_BETWEEN} '.join(captions)} ".encode("latin-1").translate(_PLAIN)
    letters = np.frombuffer(text, np.uint8)
    keep = letters != _SPACE
    edges = np.flatnonzero(keep[1:] != keep[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]  # of the words
    lengths = ends - starts
    keep[ends] = True  # one space behind each
    for article in ARTICLES:
        same = starts[lengths == len(article)]
        for place, letter in enumerate(article):
            same = same[letters[same + place] == letter]
        for place in range(len(article) + 1):
            keep[same + place] = False
    kept = letters[keep].tobytes()
    return [part.strip(b" ") for part in kept.split(_BETWEEN.encode("latin-1"))]


def _without_medium(text: bytes) -> bytes:
    return text.partition(b" of ")[2] if text.startswith(MEDIA) else text
