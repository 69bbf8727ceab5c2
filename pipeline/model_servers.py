"""Is a model served where a run says so? For every stage that asks servers of the OpenAI format.

In:    endpoints and the model that they should serve.
Out:   one sentence for each endpoint that does not.
"""

from collections.abc import Callable
from typing import Protocol

import httpx
from pydantic import BaseModel

from pipeline.credentials import credential

REACH_SECONDS = 3.0


class Model(BaseModel):
    id: str


class Models(BaseModel):
    data: list[Model]


class Asked(Protocol):
    """The values of a run that say where a model is served, and to whom."""

    @property
    def endpoints(self) -> tuple[str, ...]: ...
    @property
    def api_key_variable(self) -> str | None: ...


def key_header(variable: str | None, place: str = "api_key_variable") -> dict[str, str]:
    """What a server that wants a key is sent; nothing where the run names no variable."""
    key = credential(variable, place)
    return {"authorization": f"Bearer {key}"} if key else {}


def unserved(place: str, asked: Asked, model: str, start: Callable[[str], str]) -> list[str]:
    """`place` is where the run names the servers; `start` says how to start an endpoint's."""
    try:
        headers = key_header(asked.api_key_variable, f"{place}.api_key_variable")
    except ValueError as error:
        return [str(error)]
    found = (_wrong_with(place, each, model, start, headers) for each in asked.endpoints)
    return [wrong for wrong in found if wrong]


def _wrong_with(
    place: str, endpoint: str, model: str, start: Callable[[str], str], headers: dict[str, str]
) -> str:
    url = f"{endpoint.rstrip('/')}/models"
    try:
        response = httpx.get(url, timeout=REACH_SECONDS, trust_env=False, headers=headers)
        if response.status_code in (401, 403):
            return (
                f"{place}.endpoints: {endpoint} wants another key ({response.status_code}); "
                f"{place}.api_key_variable names the environment's variable that holds it"
            )
        served = [one.id for one in Models.model_validate_json(response.text).data]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return (
            f"{place}.endpoints: {endpoint} does not answer ({type(error).__name__}). "
            f"Start it, in an environment of its own, with: {start(endpoint)}"
        )
    return "" if model in served else f"{place}.model: {endpoint} serves {served}, not {model!r}"
