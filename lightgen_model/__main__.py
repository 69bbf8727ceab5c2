"""Draw a caption: `python -m lightgen_model "a red circle above a blue square" --out picture.png`.

In:    a caption, and a checkpoint folder; without one, the newest aligned checkpoint under
       `artifacts/`, or the newest student where none is aligned yet.
Out:   a PNG; with --num more than one picture, side by side.
"""

import argparse
import sys
from pathlib import Path

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


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lightgen_model", description="Draw a caption with a trained student."
    )
    parser.add_argument("caption")
    parser.add_argument("--out", type=Path, default=Path("picture.png"))
    parser.add_argument("--checkpoint", type=Path, help="folder; default: the newest aligned one")
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS, help="where runs keep theirs")
    parser.add_argument("--num", type=int, default=1, help="pictures, side by side")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture")
    parser.add_argument("--size", type=int, help="pixels; default: the student's first resolution")
    parser.add_argument("--iterations", type=int, help="default: one a token, at most 64")
    parser.add_argument("--head-steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=1.5)
    return parser.parse_args(arguments)


def draw(args: argparse.Namespace, folder: Path) -> None:
    # The drawing loads torch and the model libraries; --help and a wrong call do not.
    import numpy as np
    from PIL import Image

    from lightgen_model import checkpoint
    from lightgen_model.autoencoder import Autoencoder, to_images
    from lightgen_model.config import SamplingConfig
    from lightgen_model.sampling import sample
    from lightgen_model.text_encoder import TextEncoder

    config, values = checkpoint.read_config(folder)
    about = {name: str(value) for name, value in values.items()}
    size = args.size or config.base_image_size
    tokens = config.grid(size) ** 2
    sampling = SamplingConfig(
        num_iterations=args.iterations or min(tokens, 64),
        head_steps=args.head_steps,
        guidance=args.guidance,
    )
    sampling.check(config.head, tokens)
    model = checkpoint.load(folder)
    text_encoder = TextEncoder.load(
        about["text_encoder"], config.text_length, about.get("text_encoder_revision") or None
    )
    states, lengths = text_encoder.encode([args.caption] * args.num)
    latents = sample(
        model,
        states,
        lengths,
        sampling,
        image_size=size,
        seeds=range(args.seed, args.seed + args.num),
    )
    vae = Autoencoder.load(
        about["autoencoder"],
        about.get("autoencoder_revision") or None,
        about.get("autoencoder_subfolder", ""),
    )
    images = to_images(vae.decode(latents)).numpy()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(list(images), axis=1)).save(args.out)
    print(f"{args.out}: {args.num} x {size} px, by {folder}")


def main() -> None:
    args = parse(sys.argv[1:])
    try:
        if args.num < 1:
            raise ValueError(f"--num: {args.num}; at least 1")
        draw(args, args.checkpoint or newest(args.artifacts))
    except ValueError as error:
        sys.exit(f"lightgen_model: {error}")


if __name__ == "__main__":
    main()
