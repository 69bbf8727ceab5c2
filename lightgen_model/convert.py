"""A published checkpoint to a checkpoint folder of ours:
`python -m lightgen_model.convert checkpoint-20.pth --out folder`.

In:    a `.pth` or `.safetensors` in the published layout.
Out:   the folder, safetensors and config JSON, with the file's name and SHA-256 beside them.
Rerun: writes the same bytes again.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Literal


def convert(
    path: Path,
    folder: Path,
    *,
    ema: bool = False,
    num_heads: int | None = None,
    text_encoder: str = "google/flan-t5-xxl",
    autoencoder: str = "stabilityai/stable-diffusion-3.5-large",
    autoencoder_subfolder: str = "vae",
) -> None:
    """Write the folder; the named encoders are what the released code reads and decodes with."""
    # Torch is loaded by the work; --help and a wrong call do without.
    from lightgen_model import checkpoint

    part: Literal["model", "model_ema"] = "model_ema" if ema else "model"
    model = checkpoint.load_published(path, weights=part, num_heads=num_heads)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    about = {
        "source": path.name,
        "source_sha256": digest,
        "weights": part,
        "text_encoder": text_encoder,
        "autoencoder": autoencoder,
        "autoencoder_subfolder": autoencoder_subfolder,
    }
    checkpoint.save(folder, model.config, model.state_dict(), about)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lightgen_model.convert",
        description="Turn a published LightGen checkpoint into a checkpoint folder.",
    )
    parser.add_argument("path", type=Path, help="checkpoint-20.pth, or safetensors in its naming")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--ema", action="store_true", help="averaged weights; released: raw ones")
    parser.add_argument("--num-heads", type=int, help="for a width that is no published one")
    return parser.parse_args(arguments)


def main() -> None:
    args = parse(sys.argv[1:])
    try:
        convert(args.path, args.out, ema=args.ema, num_heads=args.num_heads)
    except ValueError as error:
        sys.exit(f"lightgen_model.convert: {error}")
    print(args.out)


if __name__ == "__main__":
    main()
