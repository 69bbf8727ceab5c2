"""Secrets come from the environment, are named in a run and never held by it.

In:    the name of an environment variable.
Out:   its value for the one place that needs it; texts for people with every secret masked.
Rerun: reads the environment again.

A run's values are kept (tables, ledger, results, the Prefect database), so a secret must not become
one: a run file cannot take a variable in that holds a secret, nor an address with a password.
"""

import logging
import os
import re
from collections.abc import Callable

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH_STRING|CONNECTION_URL)$")
_SHORTEST = 8  # characters: masking a shorter value would mask ordinary words
_USER_INFO = re.compile(r"//[^/@\s]+@")


def is_secret(variable: str) -> bool:
    """By its name, as the environment's secrets are named everywhere."""
    return bool(_SECRET.search(variable.upper()))


def credential(variable: str | None, place: str) -> str | None:
    """The secret in `variable`; None where no variable is named. `place` is the run's value."""
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ValueError(
            f"{place}: {variable}, but the environment has no such variable; set it where the "
            "worker is started"
        )
    return value


def masked(text: str) -> str:
    """`text` with the value of every secret of the environment replaced by its name."""
    if not text:
        return text
    values = {
        value: name
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and is_secret(name)
    }
    for value in sorted(values, key=len, reverse=True):  # one may hold another
        text = text.replace(value, f"<{values[value]}>")
    return _USER_INFO.sub("//<user>@", text)


def mask_logs() -> None:
    """From now on no log record of this process holds a secret, wherever it goes."""
    make = logging.getLogRecordFactory()
    if getattr(make, "masks", False):
        return
    logging.setLogRecordFactory(_masking(make))


def _masking(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def record(*args: object, **kwargs: object) -> logging.LogRecord:
        made = make(*args, **kwargs)
        whole = made.getMessage()
        clean = masked(whole)
        if clean != whole:
            made.msg, made.args = clean, ()
        return made

    record.masks = True  # type: ignore[attr-defined]
    return record
