"""One model on several processes, and what it costs them in memory.

In:    a model, the values of `LoopConfig`, the accelerator that knows the processes.
Out:   the same model to call in training: as it is, data-parallel (DDP), or in shards (FSDP2).

Sharded tensors are DTensors: `gathered` makes whole ones of them, `shared_out` the reverse. Names
in state dicts never change.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from lightgen_model.head import HeadBlock
from lightgen_model.layers import Block, CrossBlock

Weights = dict[str, Tensor]


def recompute_activations(model: nn.Module) -> None:
    """Keep only the inputs of blocks for the backward pass. Call it once a model."""
    for module in model.modules():
        if isinstance(module, Block | CrossBlock | HeadBlock):
            forward = partial(checkpoint, module.forward, use_reentrant=False)
            module.forward = forward  # type: ignore[method-assign]


def distribute(model: nn.Module, strategy: str, accelerator: Accelerator) -> nn.Module:
    """The model to call in training. With fsdp2 `model` itself holds shards from here on."""
    model.to(accelerator.device)
    if accelerator.num_processes == 1:
        return model
    if strategy == "ddp":
        return DistributedDataParallel(model)
    if not isinstance(model, FSDPModule):
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        for module in list(model.modules()):
            if isinstance(module, CrossBlock):
                # Only its MLP: text is projected outside the block's forward pass.
                fully_shard(module.mlp, mesh=mesh)
            elif isinstance(module, HeadBlock):
                # Layer by layer: modulations are made outside the block's forward pass.
                for layer in (module.modulation, module.fc1, module.fc2):
                    fully_shard(layer, mesh=mesh)
            elif isinstance(module, Block):
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model


@contextmanager
def gradients_stay(model: nn.Module, stay: bool) -> Iterator[None]:
    """While `stay`, gradients add up in each process and are not yet averaged over all."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not stay)
        yield
    elif stay and isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
    else:
        yield


def clip_gradients(model: nn.Module, most: float) -> Tensor:
    """Scale all gradients down to a norm of `most`; the norm before, ()."""
    return whole(nn.utils.clip_grad_norm_(model.parameters(), most))


def whole(tensor: Tensor) -> Tensor:
    """A tensor without shards. Every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(weights: Mapping[str, Tensor]) -> Weights:
    return {name: whole(value) for name, value in weights.items()}


def shared_out(weights: Mapping[str, Tensor], model: nn.Module) -> Weights:
    """Copies of whole tensors, each placed as the model's tensor of that name."""
    copies: Weights = {}
    for name, like in model.state_dict().items():
        value = weights[name].detach().to(like.device, like.dtype)
        if isinstance(like, DTensor) and not isinstance(value, DTensor):
            copies[name] = distribute_tensor(value, like.device_mesh, like.placements)
        else:
            copies[name] = value.clone()
    return copies


@torch.no_grad()
def update_average(average: Weights, model: nn.Module, decay: float, step: int) -> None:
    """EMA, warmed up so that a short run is not an average of its first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    current = model.state_dict()
    torch._foreach_lerp_(
        [local(value) for value in average.values()],
        [local(current[name]) for name in average],
        1 - decay,
    )


def local(tensor: Tensor) -> Tensor:
    """This process's shard, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
