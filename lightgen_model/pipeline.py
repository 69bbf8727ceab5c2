"""The student as a diffusers pipeline: prompts in, pictures out, with inpainting.

In:    a folder of `save_pretrained` (vae, text_encoder, tokenizer, student), or a training
       checkpoint of ours; prompts, and for inpainting pictures with masks.
Out:   pictures, or normalised latents.

A picture is a function of its own prompt and generator and not of its batch, to float tolerance.
Shapes: B pictures, L text tokens, E text width; latents (B, c, h, w), pixels (B, 3, H, W).
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from torch import Tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel, T5GemmaEncoderModel

from lightgen_model import arguments, model_card
from lightgen_model.autoencoder import Autoencoder
from lightgen_model.callbacks import Interrupted, StepEnd, step_end
from lightgen_model.config import ModelConfig, SamplingConfig
from lightgen_model.inpainting import blend, tokens_to_redraw
from lightgen_model.parts import frozen_parts
from lightgen_model.pictures import Edit, Pictures, read_edit
from lightgen_model.sampling import OnStep
from lightgen_model.student import LightGenStudent
from lightgen_model.text_encoder import TextEncoder

logger = logging.getLogger(__name__)


class LightGenPipeline(DiffusionPipeline):  # type: ignore[misc]
    model_cpu_offload_seq = "text_encoder->student->vae"
    # The student's layers are driven one by one, so sequential offloading would miss them.
    _exclude_from_cpu_offload = ["student"]  # noqa: RUF012  diffusers reads a list
    # Without T5 it draws from `prompt_embeds`.
    _optional_components = ["text_encoder", "tokenizer"]  # noqa: RUF012
    _callback_tensor_inputs = ["latents"]  # noqa: RUF012

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderDC,
        text_encoder: T5EncoderModel | T5GemmaEncoderModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        student: LightGenStudent,
    ) -> None:
        super().__init__()
        if text_encoder is not None:
            arguments.refuse_half(text_encoder.dtype)
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, student=student
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.values.token_pixels)
        self._interrupt = False
        self._guidance_scale, self._num_timesteps = 1.0, 0

    @property
    def values(self) -> ModelConfig:
        """The student's sizes."""
        return self.student.values

    @property
    def guidance_scale(self) -> float:
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    # --- folders --------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, **kwargs: Any
    ) -> "LightGenPipeline":
        """Read a saved pipeline: safetensors only, no remote code, T5 never in float16."""
        arguments.check_loading(kwargs)
        kwargs["use_safetensors"] = True
        return super().from_pretrained(str(pretrained_model_name_or_path), **kwargs)

    @staticmethod
    def from_checkpoint(folder: str | Path, **components: Any) -> "LightGenPipeline":
        """Build it from a training checkpoint, whose `about` names the VAE and the text encoder.

        `components` (vae, text_encoder, tokenizer) take the places of the named ones.
        """
        student = LightGenStudent.from_checkpoint(Path(folder))
        parts = frozen_parts(student.about, components)
        return LightGenPipeline(student=student, **parts)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write the folder, with a model card in README.md."""
        arguments.check_saving(kwargs)
        super().save_pretrained(str(save_directory), **kwargs)
        card = model_card.render(self.values, self.student.num_parameters(), self.student.about)
        (Path(save_directory) / "README.md").write_text(card, encoding="utf-8")

    def to(self, *args: Any, **kwargs: Any) -> "LightGenPipeline":
        if self.text_encoder is not None:
            arguments.refuse_half(
                next((a for a in args if isinstance(a, torch.dtype)), kwargs.get("dtype"))
            )
        return super().to(*args, **kwargs)

    # --- drawing --------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: Pictures = None,
        mask_image: Pictures = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        num_head_steps: int = 100,
        guidance_scale: float = 4.0,
        guidance_schedule: str = "constant",
        temperature: float = 1.0,
        solver: str | None = None,
        last_head_steps: int | None = None,
        negative_prompt: None = None,
        num_images_per_prompt: int = 1,
        generator: arguments.Generators = None,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepEnd | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> Any:
        """Draw `num_images_per_prompt` pictures a prompt, as an output with `images`, or a tuple.

        An empty prompt is the learned null text: a picture of anything. `num_inference_steps` are
        autoregressive steps (by default one a token, at most 64), `num_head_steps` the denoising
        steps of a token; solver, guidance_schedule and last_head_steps are those of
        `SamplingConfig`. With `image` and `mask_image` only what is white in the mask is drawn
        anew. A callback gets (pipe, step, steps to come, {"latents"}); it may set
        `pipe._interrupt = True`, and cannot change the latents.
        """
        arguments.check_call(output_type, num_images_per_prompt, negative_prompt)
        after_step = step_end(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        num_prompts = arguments.count_prompts(
            prompt, prompt_embeds, prompt_attention_mask, self.text_encoder is not None, self.values
        )
        edit = read_edit(image, mask_image, num_prompts, num_images_per_prompt)
        size = arguments.read_size(height, width, edit.size if edit else None, self.values)
        grid = self.values.grid_of(size)
        sampling = arguments.read_sampling(
            num_iterations=arguments.read_iterations(num_inference_steps, grid[0] * grid[1]),
            head_steps=num_head_steps,
            last_head_steps=last_head_steps,
            solver=solver,
            guidance=guidance_scale,
            guidance_schedule=guidance_schedule,
            temperature=temperature,
        )
        sampling.check(self.values.head, grid[0] * grid[1])
        generators = arguments.read_generators(generator, num_prompts * num_images_per_prompt)
        states, keep = self.encode_prompt(
            prompt, num_images_per_prompt, prompt_embeds, prompt_attention_mask
        )
        self._interrupt, self._guidance_scale = False, guidance_scale
        latents = self._draw(states, keep, sampling, size, generators, edit, after_step)
        images = self._finish(latents, edit, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def encode_prompt(
        self,
        prompt: str | list[str] | None,
        num_images_per_prompt: int = 1,
        prompt_embeds: Tensor | None = None,
        prompt_attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """T5 states (B, L, E) and their mask (B, L), which is empty for an empty prompt.

        Both may be given back as `prompt_embeds` and `prompt_attention_mask`.
        """
        if prompt_embeds is None:
            prompts = arguments.read_prompts(prompt)
            self._warn_of_cuts(prompts)
            encoder = TextEncoder(
                self.text_encoder, self.tokenizer, self.values.text_length, self._execution_device
            )
            states, lengths = encoder.encode(prompts)
            lengths = lengths * torch.tensor([bool(p.strip()) for p in prompts]).to(lengths)
            places = torch.arange(self.values.text_length, device=lengths.device)
            prompt_embeds, prompt_attention_mask = states, places < lengths[:, None]
        states, keep = arguments.read_embeds(prompt_embeds, prompt_attention_mask, self.values)
        states, keep = (each.to(self._execution_device) for each in (states, keep))
        return (
            states.repeat_interleave(num_images_per_prompt, dim=0),
            keep.repeat_interleave(num_images_per_prompt, dim=0),
        )

    def _warn_of_cuts(self, prompts: Sequence[str]) -> None:
        length = self.values.text_length
        for ids in self.tokenizer(prompts, verbose=False).input_ids:
            if len(ids) > length:  # the last place is that of the end token
                cut = self.tokenizer.decode(ids[length - 1 :], skip_special_tokens=True)
                logger.warning("The student reads %d text tokens; cut off is: %r", length, cut)

    def _draw(
        self,
        states: Tensor,
        keep: Tensor,
        sampling: SamplingConfig,
        size: tuple[int, int],
        generators: Sequence[torch.Generator],
        edit: Edit | None,
        after_step: OnStep,
    ) -> Tensor:
        """Latents (B, c, h, w); of an interrupted call those of its last step."""
        known = redraw = None
        self._num_timesteps = sampling.num_iterations
        if edit is not None:
            known = self._autoencoder.latents(edit.pixels)
            redraw = tokens_to_redraw(self.values, edit.mask[:, 0], size)
            self._num_timesteps = min(self._num_timesteps, int(redraw.sum(1).max()))
        with self.progress_bar(total=self._num_timesteps) as bar:

            def on_step(step: int, num_steps: int, latents: Tensor) -> None:
                bar.update()
                after_step(step, num_steps, latents)

            try:
                return self.student(
                    states,
                    keep.sum(1),
                    sampling,
                    image_size=size,
                    seeds=generators,
                    known=known,
                    redraw=redraw,
                    on_step=on_step,
                )
            except Interrupted as interrupted:
                return interrupted.latents

    @property
    def _autoencoder(self) -> Autoencoder:
        return Autoencoder(self.vae, self._execution_device)

    def _finish(self, latents: Tensor, edit: Edit | None, output_type: str) -> Any:
        if output_type == "latent":
            return latents.clone()  # a plain tensor, which autograd may use
        pixels = self._autoencoder.decode(latents)
        if edit is not None:
            original, mask = edit.pixels.to(pixels.device), edit.mask[:, 0].to(pixels.device)
            pixels = blend(original, pixels, mask)
        return self.image_processor.postprocess(pixels, output_type=output_type)
