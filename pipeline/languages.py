"""Which captions are hardly in an allowed language, by py3langid (offline, 97 languages).

In:    captions and the languages allowed.
Out:   for each caption whether all allowed languages together are improbable. A short caption
       tells too little and passes. About 0.1 ms a caption.
"""

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pipeline.config import LanguageConfig


def missing(config: LanguageConfig) -> list[str]:
    """What this machine lacks, and languages that the library does not know."""
    if importlib.util.find_spec("py3langid") is None:
        return [
            "captions.language: the package py3langid is not installed: "
            "pip install -e '.[captions]'"
        ]
    unknown = sorted(set(config.allowed) - set(_identifier().labels))
    return [f"captions.language.allowed: {unknown} are not codes of py3langid"] if unknown else []


def foreign(captions: Sequence[str], config: LanguageConfig) -> list[bool]:
    allowed = set(config.allowed)
    return [
        len(caption) >= config.min_characters
        and _probability(caption, allowed) < config.min_probability
        for caption in captions
    ]


def _probability(caption: str, allowed: set[str]) -> float:
    ranked = _identifier().rank(caption[:1000])
    return sum(float(each) for language, each in ranked if language in allowed)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
