"""Runs the released LightGen code on prepared cases; started by `test_reference.py` in a process
of its own, because the released top-level names (`models`, `diffusion`) are generic.

    LIGHTGEN_REFERENCE=folder python reference_runner.py cases.pt answers.pt

In:    `cases.pt`: published state dicts and a list of cases, tensors and plain values alone.
Out:   `answers.pt`: tensors by case and name.

The released code wants CUDA and a torchvision that imports; both are stood in for below.
"""

import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def prepare(folder: str) -> None:
    """Operator names that torchvision's import looks for, `.cuda()` as a no-op, the search path."""
    if not hasattr(torch.ops.torchvision, "nms") and torch.version.cuda is None:
        for name in ("nms", "qnms"):
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    Tensor.cuda = lambda self, *_, **__: self  # type: ignore[assignment, method-assign]
    nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[assignment, method-assign]
    sys.path.insert(0, folder)


def build(sizes: dict[str, Any]) -> Any:
    from models.fluid_arbitrary import FLUID  # type: ignore[import-not-found]

    width, heads, depth = sizes["width"], sizes["num_heads"], sizes["depth"]
    stacks = {
        f"{part}_{what}": value
        for part in ("encoder", "decoder", "cross")
        for what, value in (("embed_dim", width), ("depth", depth), ("num_heads", heads))
    }
    return FLUID(
        vae_stride=8,
        patch_size=2,
        vae_embed_dim=sizes["channels"],
        text_depth=sizes["aligner_depth"],
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
        caption_channels=sizes["text_width"],
        max_length=sizes["text_length"],
        diffloss_d=sizes["head_depth"],
        diffloss_w=sizes["head_width"],
        num_sampling_steps=str(sizes["head_steps"]),
        diffusion_batch_mul=sizes["batch_multiplier"],
        **stacks,
    )


@contextmanager
def axes_put_right(model: Any, wanted: bool) -> Iterator[None]:
    """Pictures that are not square get their tables stretched along the right axes."""
    released = model.interpolate_pos_encoding

    def stretch(x: Tensor, table: Tensor) -> Tensor:
        height, width = model.seq_h, model.seq_w
        model.seq_h, model.seq_w = width, height
        stretched = released(x, table)
        model.seq_h, model.seq_w = height, width
        return stretched

    with mock.patch.object(model, "interpolate_pos_encoding", stretch if wanted else released):
        yield


def stages(model: Any, case: dict[str, Any]) -> dict[str, Tensor]:
    """The training mathematics step by step, one draw a token, with gradients of its mean loss."""
    model.zero_grad()
    model.seq_h, model.seq_w = case["grid"]
    model.seq_len = model.seq_h * model.seq_w
    mask = case["mask"].float()
    with axes_put_right(model, case["axes_put_right"]):
        tokens = model.patchify(case["latents"])
        table = model.interpolate_pos_encoding(
            model.z_proj(tokens), model.encoder_pos_embed_learned
        )
        encoded = model.forward_fluid_encoder(tokens, mask)
        decoded = model.forward_fluid_decoder(encoded, mask)
        text = model.text_emb(case["text"])
        z = model.forward_fluid_text_decoder(decoded, text)
        null = model.fake_latent.expand(len(mask), text.shape[1], -1)
        z_null = model.forward_fluid_text_decoder(decoded, null)
    head = model.diffloss.net(tokens.flatten(0, 1), case["times"], z.flatten(0, 1))
    terms = model.diffloss.train_diffusion.training_losses(
        model.diffloss.net,
        tokens.flatten(0, 1),
        case["times"],
        {"c": z.flatten(0, 1)},
        case["noise"],
    )
    ((terms["loss"] * mask.flatten()).sum() / mask.sum()).backward()
    gradients = {
        f"gradient {name}": p.grad for name, p in model.named_parameters() if p.grad is not None
    }
    return gradients | {
        "tokens": tokens,
        "encoder table": table,
        "head": head,
        "encoded": encoded,
        "decoded": decoded,
        "text": text,
        "z": z,
        "z_null": z_null,
        "mse": terms["mse"],
        "vb": terms["vb"],
    }


def sample(model: Any, case: dict[str, Any]) -> dict[str, Tensor]:
    """The released sampler under given orders and a noise tape (head steps + 1, B, N, D)."""
    from models import fluid_arbitrary

    tape, order = case["tape"], case["orders"]
    masks = [torch.ones(order.shape, dtype=torch.bool)]
    released, steps = fluid_arbitrary.mask_by_order, iter(())

    def watched(*arguments: Any) -> Tensor:
        masks.append(released(*arguments))
        return masks[-1]

    def rows() -> Iterator[Tensor]:
        last = len(masks) == case["num_iterations"] + 1
        chosen = masks[-2] if last else masks[-2] ^ masks[-1]
        yield from (level[chosen] for level in tape)

    def first(*_: Any) -> Tensor:
        nonlocal steps
        steps = rows()
        return next(steps)

    def following(x: Tensor) -> Tensor:
        noise = next(steps)
        return noise.repeat(len(x) // len(noise), 1)

    with (
        mock.patch.object(fluid_arbitrary, "mask_by_order", watched),
        mock.patch.object(model, "sample_orders", return_value=order),
        mock.patch.object(torch, "randn", first),
        mock.patch.object(torch, "randn_like", following),
        axes_put_right(model, True),
        torch.no_grad(),
    ):
        latents = model.sample_tokens(
            len(order),
            num_iter=case["num_iterations"],
            cfg=case["guidance"],
            cfg_schedule=case["guidance_schedule"],
            texts=case["text"],
            temperature=case["temperature"],
            height=16 * case["grid"][0],
            width=16 * case["grid"][1],
        )
    return {"latents": latents}


def main() -> None:
    prepare(os.environ["LIGHTGEN_REFERENCE"])
    given = torch.load(sys.argv[1], weights_only=True)
    model = build(given["sizes"]).eval()
    answers = {}
    for case in given["cases"]:
        model.load_state_dict(given["states"][case["kind"]])
        answers[case["name"]] = (stages if case["kind"] == "stages" else sample)(model, case)
    torch.save(answers, sys.argv[2])


if __name__ == "__main__":
    main()
