"""A page to draw with: `python -m lightgen_model.page`, then open the address it prints.

In:    a folder: a saved pipeline or a training checkpoint; without one, the newest aligned
       checkpoint under `artifacts/`.
Out:   a Gradio page on this machine alone (127.0.0.1): one tab draws, one draws parts anew.

Gradio is the extra `ui`: `pip install -e ".[ui]"`. It is not in the locks: Gradio 6.31 wants Pillow
below 13, which the locks are beyond, so the extra takes Pillow back to 12 (tried with both).
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightgen_model.__main__ import ARTIFACTS, load, newest

if TYPE_CHECKING:
    from lightgen_model.pipeline import LightGenPipeline

HOST = "127.0.0.1"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m lightgen_model.page", description="Draw captions on a page."
    )
    parser.add_argument("--checkpoint", type=Path, help="folder; default: the newest aligned one")
    parser.add_argument("--artifacts", type=Path, default=ARTIFACTS, help="where runs keep theirs")
    parser.add_argument("--port", type=int, default=7860)
    return parser.parse_args(arguments)


def gradio() -> Any:
    """The package; ValueError that names the extra where it is missing."""
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise ValueError('gradio is missing: pip install -e ".[ui]"') from error
    return gradio


class Drawer:
    """What the page's buttons call; a wrong value is a notice on the page."""

    def __init__(self, pipe: "LightGenPipeline", gradio: Any) -> None:
        self.pipe, self.gradio = pipe, gradio

    def draw(
        self,
        prompt: str,
        seed: float | None,
        guidance: float,
        iterations: float,
        head_steps: float,
        height: float | None,
        width: float | None,
    ) -> Any:
        """An empty side is the student's own."""
        sides = {"height": int(height or 0) or None, "width": int(width or 0) or None}
        return self._call(prompt, seed, guidance, iterations, head_steps, **sides)

    def redraw(
        self,
        prompt: str,
        edited: dict[str, Any] | None,
        seed: float | None,
        guidance: float,
        iterations: float,
        head_steps: float,
    ) -> Any:
        """`edited` is what Gradio's image editor gives: a background and painted layers."""
        from PIL import Image, ImageChops

        if not edited or edited["background"] is None:
            raise self.gradio.Error("Give a picture first, then paint over what to draw anew.")
        image = edited["background"].convert("RGB")
        mask = Image.new("L", image.size)
        for layer in edited["layers"]:  # what is painted is what is opaque
            mask = ImageChops.lighter(mask, layer.convert("RGBA").getchannel("A"))
        return self._call(
            prompt, seed, guidance, iterations, head_steps, image=image, mask_image=mask
        )

    def _call(
        self,
        prompt: str,
        seed: float | None,
        guidance: float,
        iterations: float,
        head_steps: float,
        **rest: Any,
    ) -> Any:
        import torch

        try:
            return self.pipe(
                prompt,
                num_inference_steps=int(iterations) or None,
                num_head_steps=int(head_steps),
                guidance_scale=guidance,
                generator=torch.Generator().manual_seed(int(seed or 0)),
                **rest,
            ).images[0]
        except ValueError as error:
            raise self.gradio.Error(str(error)) from error


def build(pipe: "LightGenPipeline") -> Any:
    """The page, not yet served."""
    gr = gradio()
    config, drawer = pipe.values, Drawer(pipe, gr)
    shown = {"format": "png", "interactive": False, "height": 512, "buttons": ["download"]}
    one = {"concurrency_id": "pipe", "concurrency_limit": 1}  # a pipeline draws for one at a time

    def knobs() -> list[Any]:
        return [
            gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**53),
            gr.Slider(0, 10, 1.5, step=0.1, label="Guidance (1: none)"),
            gr.Slider(0, 256, 0, step=1, label="Steps (0: one a token, at most 64)"),
            gr.Slider(1, 250, 25, step=1, label="Head steps a token"),
        ]

    with gr.Blocks(title="LightGen", analytics_enabled=False) as page:
        gr.Markdown("# LightGen")
        with gr.Tab("Draw"), gr.Row():
            with gr.Column():
                prompt = gr.Textbox(label="Prompt", placeholder="a red circle")
                values = knobs()
                size = {"value": config.base_image_size, "precision": 0}
                sides = [gr.Number(label=f"{s}, pixels", **size) for s in ("Height", "Width")]
                button = gr.Button("Draw", variant="primary")
            picture = gr.Image(label="Picture", **shown)
        inputs = [prompt, *values, *sides]
        button.click(drawer.draw, inputs, picture, api_name="draw", **one)
        prompt.submit(drawer.draw, inputs, picture, api_visibility="private", **one)
        with gr.Tab("Draw a part anew"), gr.Row():
            with gr.Column():
                prompt = gr.Textbox(label="Prompt", placeholder="a blue square")
                editor = gr.ImageEditor(
                    label="Paint over what to draw anew",
                    type="pil",
                    format="png",  # the default loses colours
                    sources=("upload", "clipboard"),
                    transforms=(),
                    height=512,
                )
                values = knobs()
                button = gr.Button("Draw anew", variant="primary")
            picture = gr.Image(label="Picture", **shown)
        button.click(drawer.redraw, [prompt, editor, *values], picture, api_name="redraw", **one)
    return page


def serve(folder: Path, port: int) -> None:
    build(load(folder)).launch(server_name=HOST, server_port=port, share=False, footer_links=[])


def main() -> None:
    args = parse(sys.argv[1:])
    try:
        gradio()
        serve(args.checkpoint or newest(args.artifacts), args.port)
    except (ValueError, OSError) as error:
        sys.exit(f"lightgen_model.page: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
