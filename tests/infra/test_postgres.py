"""The server of compose with a real Postgres behind it: deployed, run, and kept there."""

import asyncio
import subprocess
from pathlib import Path

import asyncpg
import pytest

from tests.infra.composed import SERVICES, postgres, postgres_binaries, running, settings

CHOSEN = {"LIGHTGEN_AUTH": "someone:planted-5a1c", "LIGHTGEN_DATABASE_PASSWORD": "planted-77e0"}


async def states(url: str) -> list[str]:
    database = await asyncpg.connect(url)
    try:
        return [row["state_type"] for row in await database.fetch("select * from flow_run")]
    finally:
        await database.close()


def test_a_run_of_compose_is_kept_in_postgres(tmp_path: Path) -> None:
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("no Postgres on this machine")
    of, (_, _, script) = SERVICES["database"]["environment"], SERVICES["deploy"]["command"]
    password = CHOSEN["LIGHTGEN_DATABASE_PASSWORD"]
    with postgres(binaries, of["POSTGRES_USER"], password, of["POSTGRES_DB"]) as port:
        client, server = settings("worker", CHOSEN), settings("server", CHOSEN)
        name = "PREFECT_API_DATABASE_CONNECTION_URL"
        server[name] = server[name].replace("@database/", f"@127.0.0.1:{port}/")
        with running(tmp_path, client | server) as within:
            for command in (script, "prefect deployment run plan/tiny --watch"):
                done = subprocess.run(
                    ["sh", "-ec", command],
                    cwd=tmp_path,
                    env=within,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stdout
        url = server[name].replace("postgresql+asyncpg", "postgresql")
        assert asyncio.run(states(url)) == ["COMPLETED"]
