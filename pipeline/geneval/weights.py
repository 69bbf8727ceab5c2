"""Which weights judge: a folder of safetensors or a snapshot in the hub's cache, and its name.

In:    a folder, or a repository of the hub with its revision. Nothing is downloaded.
Out:   the folder, and a name that says which weights they are: the same bytes, the same name.
"""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from pipeline.encoders import weights_identity

DIGITS = 12  # of the checksum, in a name


def folder_of(place: str, repository: str, revision: str | None = None) -> Path:
    """Where the weights lie; `place` is the value that names them, for the error."""
    folder = Path(repository)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
        except (LocalEntryNotFoundError, ValueError) as error:
            raise ValueError(
                f"{place}: {repository} is no folder here and not in the hub's cache; "
                f"get it with: hf download {repository}"
            ) from error
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"{place}: {folder} holds no .safetensors")
    return folder


def identity(folder: Path, name: str) -> str:
    """`mask2former-swin-small-coco-instance@3f1a2b3c4d5e`: a name and a sum of the folder."""
    return f"{name.rstrip('/').split('/')[-1]}@{weights_identity(str(folder), None)[:DIGITS]}"
