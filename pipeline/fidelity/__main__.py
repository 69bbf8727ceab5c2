"""FID, CMMD and CLIP score of a folder of pictures: `python -m pipeline.fidelity FOLDER`.

    python -m pipeline.fidelity FOLDER --reference PHOTOS --inception weights.safetensors \
        --cmmd CLIP-L-336 --clip-score CLIP-L --out fidelity.jsonl

In:    a folder of pictures; another to compare it with; the weights of what is asked for.
Out:   a JSON line a measure: {"measure", "value", "pictures", "reference_pictures", "preparation",
       "resize", "extractor", "fingerprint", "reference_fingerprint", "cautions"}.
Rerun: features of both folders are read from the cache; the lines are added again.

Numbers of other counts, resizes or extractors do not compare: each line says its own.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from pipeline.config import FidelityConfig
from pipeline.fidelity.measuring import measured


def values_of(args: argparse.Namespace) -> FidelityConfig:
    names = ("reference", "inception", "cmmd", "clip_score", "resize", "size")
    given = {name: getattr(args, name) for name in names}
    try:
        return FidelityConfig.model_validate(given)
    except ValidationError as error:
        raise ValueError("; ".join(each["msg"] for each in error.errors())) from error


def measure(args: argparse.Namespace) -> None:
    values = values_of(args)
    # Torch is loaded by the work; --help and a wrong call do without.
    from pipeline.fidelity.references import PictureSet

    pictures = PictureSet.of(args.folder, values.size, args.number)
    for row in measured(pictures, values, args.cache, args.device):
        line = json.dumps(asdict(row))
        print(line, flush=True)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with args.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.fidelity", description="FID, CMMD and CLIP score of pictures."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--reference", help="folder of pictures to compare with")
    parser.add_argument("--inception", help="torch-fidelity's weights: FID")
    parser.add_argument("--cmmd", help="a CLIP in open_clip's layout, of 336 px: CMMD")
    parser.add_argument("--clip-score", help="a CLIP in open_clip's layout: CLIP score")
    parser.add_argument("--resize", choices=("tensorflow", "clean"), default="tensorflow")
    parser.add_argument("--size", type=int, help="both sets as middle squares of so many pixels")
    parser.add_argument("--number", type=int, help="the first pictures by name; default: all")
    parser.add_argument("--cache", type=Path, default=Path("artifacts/fidelity"))
    parser.add_argument("--out", type=Path, help="file to add the lines to; default: stdout alone")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args(arguments)


def main() -> None:
    args = parse(sys.argv[1:])
    try:
        measure(args)
    except ValueError as error:
        sys.exit(f"pipeline.fidelity: {error}")


if __name__ == "__main__":
    main()
