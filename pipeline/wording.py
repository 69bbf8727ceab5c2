"""Wording: one spelling for what reads the same, and what is left when only form is taken away.

In:    a caption as it stands in a source.
Out:   its normal form and the id of it; its words without case, punctuation and articles.
"""

import hashlib
import re
import string
import unicodedata

# Invisible marks that scripts and emoji need; all others of their class are dropped.
JOINERS = "\u200c\u200d"
ARTICLES = {b"a", b"an", b"the"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN = bytes.maketrans(
    (string.punctuation + string.ascii_uppercase).encode(),
    (" " * len(string.punctuation) + string.ascii_lowercase).encode(),
)
MEDIA = (b"photo of ", b"picture of ", b"image of ")  # at the head of a caption they say nothing
_WORD = re.compile(r"\w+")


def normalise(text: str) -> str:
    """One spelling for what reads the same: composed letters, no invisible marks, plain spaces."""
    if text.isascii():  # nearly all captions, and ten times faster
        return " ".join((text if text.isprintable() else _CONTROL.sub(" ", text)).split())
    text = text.encode("utf-8", "replace").decode("utf-8")  # half characters become "?"
    spaced = "".join(_plain(letter) for letter in unicodedata.normalize("NFC", text))
    return unicodedata.normalize("NFC", " ".join(spaced.split()))


def _plain(letter: str) -> str:
    category = unicodedata.category(letter)
    if category == "Cc":
        return " "
    return "" if category == "Cf" and letter not in JOINERS else letter


def caption_id_of(caption: str) -> str:
    return hashlib.sha256(caption.encode()).hexdigest()[:16]


def essence(caption: str) -> bytes:
    """Words in UTF-8, lower case, a space apart, without punctuation, articles, "photo of"."""
    if caption.isascii():
        words = caption.encode().translate(_PLAIN).split()
    else:
        words = [word.encode() for word in _WORD.findall(caption.casefold())]
    text = b" ".join([word for word in words if word not in ARTICLES])
    return text.partition(b" of ")[2] if text.startswith(MEDIA) else text
