"""Lets a torchvision built for CUDA import beside a CPU torch: declares what it looks for.

In:    nothing; loaded by a .pth file in every process of the judge's environment.
Out:   two operators without kernels, when torchvision is first imported. What needs them
       (nms, detection) still fails; image transforms, which vLLM's processors use, work.
"""

import sys
from types import ModuleType
from typing import Any

KEPT: list[Any] = []  # dropping a library would undo its declarations


class Finder:
    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            declare()


def declare() -> None:
    import torch

    if torch.version.cuda is not None or hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT.append(library)


sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
