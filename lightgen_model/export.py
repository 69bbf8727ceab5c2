"""Export: `python -m lightgen_model.export --out FOLDER`, for `LightGenPipeline.from_pretrained`.

In:    a training checkpoint folder; without one, the newest aligned checkpoint under `artifacts/`.
Out:   a folder that needs nothing else: vae, text_encoder, tokenizer, student, model card.
Rerun: writes the same files over those that are there.
"""

import argparse
import sys
from pathlib import Path

from lightgen_model.__main__ import ARTIFACTS, newest


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lightgen_model.export",
        description="Write a training checkpoint as a diffusers pipeline.",
    )
    parser.add_argument("--checkpoint", type=Path, help="folder; default: the newest aligned one")
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS, help="where runs keep theirs")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    return parser.parse_args(arguments)


def export(checkpoint: Path, out: Path) -> None:
    # Writing loads torch and the model libraries; --help and a wrong call do not.
    from lightgen_model.pipeline import LightGenPipeline

    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: {out} is a file; give a folder")
    LightGenPipeline.from_checkpoint(checkpoint).save_pretrained(out)
    print(f"{out}: a pipeline of {checkpoint}")


def main() -> None:
    args = parse(sys.argv[1:])
    try:
        export(args.checkpoint or newest(args.artifacts), args.out)
    except (ValueError, OSError) as error:
        sys.exit(f"lightgen_model.export: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
