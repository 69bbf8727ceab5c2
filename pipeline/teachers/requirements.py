"""What a diffusers teacher needs before it may draw: a licence that allows it, weights, a GPU.

In:    the teacher's config and the licence that the run accepts.
Out:   one sentence for each thing missing and how to get it. Neither torch nor diffusers loads.
"""

import json
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from pipeline.config import DiffusersTeacher

FREE_LICENCES = ("Apache-2.0", "MIT", "BSD-3-Clause", "CC0-1.0")
FLUX_NON_COMMERCIAL = "FLUX-Non-Commercial"  # section 2(d): outputs may not train a competitor
LICENCES = {
    "black-forest-labs/FLUX.1-dev": FLUX_NON_COMMERCIAL,
    "black-forest-labs/FLUX.2-dev": FLUX_NON_COMMERCIAL,
    "black-forest-labs/FLUX.2-klein-9B": FLUX_NON_COMMERCIAL,
    "black-forest-labs/FLUX.1-schnell": "Apache-2.0",
    "black-forest-labs/FLUX.2-klein-4B": "Apache-2.0",
}


def missing_for(config: DiffusersTeacher, accept_licence: str | None) -> list[str]:
    lacking = [_missing_licence(config, accept_licence), _missing_weights(config)]
    if config.dtype == "bfloat16" and not any(Path("/dev").glob("nvidia[0-9]*")):
        lacking.append(
            f"images.teacher: {config.pipeline} in bfloat16 needs a CUDA GPU and this machine "
            "has none; run on one that has, or choose the shapes teacher"
        )
    return [sentence for sentence in lacking if sentence]


def _missing_licence(config: DiffusersTeacher, accept_licence: str | None) -> str:
    licence = LICENCES.get(config.repository, config.licence)
    if licence != config.licence:
        return (
            f"images.teacher.licence: {config.repository} is under {licence}, "
            f"the run says {config.licence}"
        )
    if licence in FREE_LICENCES or accept_licence == licence:
        return ""
    return (
        f"images.accept_licence: {config.repository} is under {licence}, which may forbid to train "
        f"a model on its pictures; read it, and set images.accept_licence to {licence!r} if "
        f"you may (it is {accept_licence!r}; free to use: {', '.join(FREE_LICENCES)})"
    )


def _missing_weights(config: DiffusersTeacher) -> str:
    folder = Path(config.repository)
    if folder.is_dir():
        lacking = _incomplete(folder)
        return f"images.teacher.repository: {folder} lacks {lacking}" if lacking else ""
    if folder.is_absolute() or config.repository.count("/") != 1:
        return f"images.teacher.repository: the folder {config.repository} is not there"
    if config.revision is None:
        return (
            f"images.teacher.revision: {config.repository} is a hub repository and needs a pinned "
            "revision, the 40 digits of a commit"
        )
    index = try_to_load_from_cache(config.repository, "model_index.json", revision=config.revision)
    lacking = _incomplete(Path(index).parent) if isinstance(index, str) else "all files"
    if not lacking:
        return ""
    return (
        f"images.teacher.repository: {config.repository} is not in the hub cache ({lacking}). "
        f"Get it with: hf download {config.repository} --revision {config.revision}"
    )


def _incomplete(folder: Path) -> str:
    """What a pipeline's folder lacks, "" when each component has its config and weights."""
    index = folder / "model_index.json"
    if not index.is_file():
        return "model_index.json"
    components: dict[str, object] = json.loads(index.read_text("utf-8"))
    for name, entry in components.items():
        if not isinstance(entry, list) or entry[0] is None:
            continue
        component = folder / name
        if not component.is_dir():
            return name
        if (component / "config.json").is_file() and not any(component.glob("*.safetensors")):
            return f"{name}'s weights"
        for shards in component.glob("*.safetensors.index.json"):
            for file in json.loads(shards.read_text("utf-8"))["weight_map"].values():
                if not (component / file).is_file():
                    return f"{name}/{file}"
    return ""
