"""What a teacher needs before it may draw: a licence that allows it, weights or files, a GPU.

In:    the teacher's config and the licence that the run accepts.
Out:   one sentence for each thing missing and how to get it. Neither torch nor diffusers loads.
"""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from pipeline import plugins
from pipeline.config import DiffusersTeacher, PicturesTeacher, PluginTeacher

FREE_LICENCES = (
    "Apache-2.0",
    "MIT",
    "BSD-3-Clause",
    "CC0-1.0",
    "CC-BY-4.0",
    "CDLA-Permissive-2.0",
)
# Names of terms that restrict what may be trained on a model's pictures.
FLUX = "FLUX-Non-Commercial"  # section 2(d): not to train a competitive model
STABILITY = "Stability-Community"  # outputs not to create or improve a foundational model
NVIDIA = "NSCL-v2-custom"  # research and evaluation only
LIBRARIES = {
    "bitsandbytes_4bit": ("bitsandbytes",),
    "bitsandbytes_8bit": ("bitsandbytes",),
    "torchao": ("torchao",),
    "torchao int4": ("torchao", "mslk"),
}
# What a backend of attention needs beside torch, by the beginning of its name.
BACKENDS = {
    "flash": ("flash_attn", "flash-attn"),
    "_flash": ("flash_attn_interface", "FlashAttention 3, built from its source"),
    "sage": ("sageattention", "sageattention"),
    "_sage": ("sageattention", "sageattention"),
    "xformers": ("xformers", "xformers"),
}


@dataclass(frozen=True)
class Terms:
    """What is known of a repository: its licence, and whether a model may be distilled from it."""

    licence: str
    distillation: bool = True
    caution: str = ""


KNOWN: Mapping[str, Terms] = {
    "black-forest-labs/FLUX.1-schnell": Terms("Apache-2.0"),
    "black-forest-labs/FLUX.2-klein-4B": Terms("Apache-2.0"),
    "black-forest-labs/FLUX.1-dev": Terms(FLUX, False),
    "black-forest-labs/FLUX.1-Krea-dev": Terms(FLUX, False),
    "black-forest-labs/FLUX.2-dev": Terms(FLUX, False),
    "black-forest-labs/FLUX.2-klein-9B": Terms(FLUX, False),
    "Qwen/Qwen-Image": Terms("Apache-2.0"),
    "Tongyi-MAI/Z-Image-Turbo": Terms("Apache-2.0"),
    "stabilityai/stable-diffusion-3.5-large": Terms(STABILITY, False),
    "stabilityai/stable-diffusion-3.5-large-turbo": Terms(STABILITY, False),
    "stabilityai/stable-diffusion-3.5-medium": Terms(STABILITY, False),
    "Efficient-Large-Model/Sana_1600M_512px_diffusers": Terms(NVIDIA, False),
    "Efficient-Large-Model/Sana_600M_512px_diffusers": Terms(NVIDIA, False),
    # Sets of pictures. A licence on a card does not lift the terms of what drew them.
    "jackyhate/text-to-image-2M": Terms(
        "MIT", False, "its pictures were drawn by FLUX.1-dev and DALL-E 3, under their terms"
    ),
    "KempnerInstituteAI/flux.2-dev-synthetic-2M": Terms(FLUX, False),
    "Spawning/PD12M": Terms("CDLA-Permissive-2.0"),
}


def missing_for(
    config: DiffusersTeacher | PicturesTeacher | PluginTeacher, accept_licence: str | None
) -> list[str]:
    if isinstance(config, PluginTeacher):
        licence = _missing_licence(config.path, config.licence, accept_licence)
        code = plugins.missing(config.path, "images.teacher")
        return [sentence for sentence in (licence, code) if sentence]
    if isinstance(config, PicturesTeacher):
        from pipeline.teachers.pictures import missing_files

        licence = _missing_licence(config.dataset or config.name, config.licence, accept_licence)
        return [sentence for sentence in (licence, *missing_files(config)) if sentence]
    lacking = [
        _missing_licence(config.repository, config.licence, accept_licence),
        _missing_class(config.pipeline),
        _missing_weights(config),
        *_missing_libraries(config),
        missing_backend(config.attention_backend),
        _missing_classifier(config),
    ]
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        lacking += _missing_gpu(config)
    return [sentence for sentence in lacking if sentence]


def _missing_gpu(config: DiffusersTeacher) -> list[str]:
    bits = config.quantization
    wanted = {
        "in bfloat16": config.dtype == "bfloat16",
        "with bitsandbytes": bits is not None and bits.method.startswith("bitsandbytes"),
        "with offload": config.offload != "none",
    }
    return [
        f"images.teacher: {config.pipeline} {what} needs a CUDA GPU and this machine has none; "
        "run on one that has, or choose the shapes teacher"
        for what, asked in wanted.items()
        if asked
    ]


def _missing_licence(repository: str, stated: str, accepted: str | None) -> str:
    terms = KNOWN.get(repository, Terms(stated, stated in FREE_LICENCES))
    if terms.licence != stated:
        return (
            f"images.teacher.licence: {repository} is under {terms.licence}, the run says {stated}"
        )
    if terms.distillation or accepted == stated:
        return ""
    caution = f": {terms.caution}" if terms.caution else ""
    return (
        f"images.accept_licence: {repository} is under {stated}, which may forbid to train "
        f"a model on its pictures{caution}; read it, and set images.accept_licence to {stated!r} "
        f"if you may (it is {accepted!r}; free to use: {', '.join(FREE_LICENCES)})"
    )


def _missing_class(pipeline: str) -> str:
    """Read from the library's source: to import it takes seconds."""
    source = (_diffusers() / "__init__.py").read_text("utf-8")
    names = set(re.findall(r'"(\w+Pipeline)"', source))
    if pipeline in names:
        return ""
    close = difflib.get_close_matches(pipeline, names, n=3)
    return f"images.teacher.pipeline: diffusers has no {pipeline!r}; close names: {close}"


def _missing_libraries(config: DiffusersTeacher) -> list[str]:
    if config.quantization is None:
        return []
    method, weights = config.quantization.method, config.quantization.weights
    needed = LIBRARIES.get(f"{method} {weights}", LIBRARIES[method])
    return [
        f"images.teacher.quantization: {method} needs {library}; pip install {library}"
        for library in needed
        if not find_spec(library)
    ]


def missing_backend(name: str | None) -> str:
    """Also a name that diffusers does not have, before weights are loaded for it."""
    if name is None:
        return ""
    place = "images.teacher.attention_backend"
    source = (_diffusers() / "models" / "attention_dispatch.py").read_text("utf-8")
    names = re.findall(r'^    [A-Z_0-9]+ = "(\w+)"', source, re.MULTILINE)
    if name not in names:
        return f"{place}: diffusers has no {name!r}, it has {names}"
    start = (each for first, each in BACKENDS.items() if name.startswith(first))
    module, package = ("kernels", "kernels") if name.endswith("_hub") else next(start, ("", ""))
    return f"{place}: {name} needs {package}" if module and not find_spec(module) else ""


def _diffusers() -> Path:
    spec = find_spec("diffusers")
    assert spec and spec.origin, "a dependency of this project"
    return Path(spec.origin).parent


def _missing_classifier(config: DiffusersTeacher) -> str:
    if config.safety is None:
        return ""
    repository, revision = config.safety.repository, config.safety.revision
    place = "images.teacher.safety.repository"
    if (Path(repository) / "config.json").is_file():
        return ""
    if Path(repository).is_absolute() or repository.count("/") != 1:
        return f"{place}: the folder {repository} is not there"
    if revision is None:
        return f"images.teacher.safety.revision: {repository} is a hub repository: pin a commit"
    if isinstance(try_to_load_from_cache(repository, "config.json", revision=revision), str):
        return ""
    return (
        f"{place}: {repository} is not in the hub cache. "
        f"Get it with: hf download {repository} --revision {revision}"
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
