"""Is a model served where a run says so? For every stage that asks servers of the OpenAI format.

In:    endpoints and the model that they should serve.
Out:   one sentence for each endpoint that does not.
"""

from collections.abc import Callable, Sequence

import httpx
from pydantic import BaseModel

REACH_SECONDS = 3.0


class Model(BaseModel):
    id: str


class Models(BaseModel):
    data: list[Model]


def unserved(
    place: str, endpoints: Sequence[str], model: str, start: Callable[[str], str]
) -> list[str]:
    """`place` is where the run names the servers; `start` says how to start an endpoint's."""
    return [wrong for each in endpoints if (wrong := _wrong_with(place, each, model, start))]


def _wrong_with(place: str, endpoint: str, model: str, start: Callable[[str], str]) -> str:
    try:
        response = httpx.get(
            f"{endpoint.rstrip('/')}/models", timeout=REACH_SECONDS, trust_env=False
        )
        served = [one.id for one in Models.model_validate_json(response.text).data]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return (
            f"{place}.endpoints: {endpoint} does not answer ({type(error).__name__}). "
            f"Start it, in an environment of its own, with: {start(endpoint)}"
        )
    return "" if model in served else f"{place}.model: {endpoint} serves {served}, not {model!r}"
