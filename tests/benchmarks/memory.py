"""Memory and seconds to read the 792 M student from disk and to run it once at 256 px.

    PYTHONPATH=. python tests/benchmarks/memory.py [--folder F] [--threads 2]

Writes a checkpoint of random weights (3.0 GiB) into a temporary folder unless one is given, then
starts a fresh process, since peaks are a process's own. `private` is memory that the process holds
alone; the rest of the resident memory is pages of the file, which the system may drop.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from lightgen_model import checkpoint
from lightgen_model.config import lightgen_published
from lightgen_model.model import LightGen, gather_index

GIB = 2**20  # KiB


def status(field: str) -> float:
    """A field of this process's memory in GiB."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / GIB
    raise ValueError(f"no {field} in /proc/self/status")


def write(folder: Path) -> None:
    model = LightGen(lightgen_published()).init_weights(torch.Generator().manual_seed(0))
    checkpoint.save(folder, model.config, model.state_dict(), {})


@torch.inference_mode()
def forward(model: LightGen) -> None:
    """Losses of one picture at 256 px with most tokens masked."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(1, 256, generator=generator) < 0.87
    assert gather_index(mask).real is None
    rows = model.num_draws(mask)
    losses = model(
        torch.randn(1, 16, 32, 32, generator=generator),
        torch.randn(1, 128, 4096, generator=generator),
        torch.tensor([40]),
        mask,
        times=torch.randint(0, 1000, (rows,), generator=generator),
        noise=torch.randn(rows, 64, generator=generator),
    )
    assert losses.mse.isfinite().all()


def measure(folder: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    print("| what | seconds | peak resident, GiB | of it private now, GiB |\n|---|---|---|---|")
    print(f"| imports | | {status('VmHWM'):.2f} | {status('RssAnon'):.2f} |")
    start = time.perf_counter()
    model = checkpoint.load(folder)
    spent = time.perf_counter() - start
    print(f"| load, every weight checked | {spent:.1f} | {status('VmHWM'):.2f} ", end="")
    print(f"| {status('RssAnon'):.2f} |")
    start = time.perf_counter()
    forward(model)
    spent = time.perf_counter() - start
    print(f"| forward, 256 px, batch 1 | {spent:.1f} | {status('VmHWM'):.2f} ", end="")
    print(f"| {status('RssAnon'):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="a checkpoint folder that is there")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner:
        measure(args.folder, args.threads)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = args.folder or Path(place) / "published"
        if args.folder is None:
            write(folder)
        command = [sys.executable, __file__, "--inner", "--folder", str(folder)]
        subprocess.run([*command, "--threads", str(args.threads)], check=True)


if __name__ == "__main__":
    main()
