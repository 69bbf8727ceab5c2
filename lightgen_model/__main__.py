"""Draw captions: `python -m lightgen_model "a red circle above a blue square" --out picture.png`.

In:    captions, and a folder: a training checkpoint or a saved pipeline; without one, the newest
       aligned checkpoint under `artifacts/`, or the newest student where none is aligned yet. For
       inpainting a picture and a mask, whose white is drawn anew.
Out:   a PNG; more than one picture stand side by side.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightgen_model.pipeline import LightGenPipeline

ARTIFACTS = Path("artifacts")


def newest(artifacts: Path) -> Path:
    """The newest finished checkpoint, aligned ones first."""
    for stage in ("dpo", "student"):
        found = artifacts.glob(f"*/checkpoints/{stage}-*/final/config.json")
        if files := sorted(found, key=lambda file: file.stat().st_mtime):
            return files[-1].parent
    raise ValueError(
        f"no finished checkpoint under {artifacts.resolve()}: run `make distill` first, "
        "or give --checkpoint FOLDER"
    )


def load(folder: Path) -> "LightGenPipeline":
    """A saved pipeline, or one around a training checkpoint."""
    from lightgen_model.pipeline import LightGenPipeline

    if (folder / "model_index.json").is_file():
        return LightGenPipeline.from_pretrained(folder)
    return LightGenPipeline.from_checkpoint(folder)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lightgen_model", description="Draw captions with a trained student."
    )
    parser.add_argument("captions", nargs="+", metavar="caption")
    parser.add_argument("--out", type=Path, default=Path("picture.png"))
    parser.add_argument("--checkpoint", type=Path, help="folder; default: the newest aligned one")
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS, help="where runs keep theirs")
    parser.add_argument("--num", type=int, default=1, help="pictures a caption, side by side")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture of a caption")
    parser.add_argument("--size", type=int, help="pixels; default: the student's first resolution")
    parser.add_argument("--height", type=int, help="pixels; default: --size")
    parser.add_argument("--width", type=int, help="pixels; default: --size")
    parser.add_argument("--iterations", type=int, help="default: one a token, at most 64")
    parser.add_argument("--head-steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--image", type=Path, help="draw a part of this picture anew")
    parser.add_argument("--mask", type=Path, help="that part is white here")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args(arguments)


def draw(args: argparse.Namespace, folder: Path) -> None:
    # The drawing loads torch and the model libraries; --help and a wrong call do not.
    import numpy as np
    import torch
    from PIL import Image

    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device: cuda; there is none here, allowed: cpu")
    image, mask = (path and Image.open(path) for path in (args.image, args.mask))
    pipe = load(folder).to(args.device)
    seeds = [args.seed + index for _ in args.captions for index in range(args.num)]
    pictures = pipe(
        args.captions,
        image=image,
        mask_image=mask,
        height=args.height or args.size,
        width=args.width or args.size,
        num_inference_steps=args.iterations,
        num_head_steps=args.head_steps,
        guidance_scale=args.guidance,
        num_images_per_prompt=args.num,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    ).images
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([np.asarray(each) for each in pictures], axis=1)).save(args.out)
    width, height = pictures[0].size
    print(f"{args.out}: {len(pictures)} x {width} x {height} px, by {folder}")


def main() -> None:
    args = parse(sys.argv[1:])
    try:
        if args.num < 1:
            raise ValueError(f"--num: {args.num}; at least 1")
        draw(args, args.checkpoint or newest(args.artifacts))
    except (ValueError, OSError) as error:
        sys.exit(f"lightgen_model: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
