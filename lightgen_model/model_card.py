"""The model card: README.md of a saved pipeline, filled from values, with nothing left open.

In:    a student's sizes, and `about`: where its weights came from, by value.
Out:   Markdown with the hub's metadata on top. What `about` does not say is named as not recorded.
"""

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from lightgen_model.config import ModelConfig

UNKNOWN = "not recorded"
# Keys of `about` the card has a sentence for; further ones are listed under "Where from".
NAMED = (
    "autoencoder",
    "text_encoder",
    "licence",
    "teacher",
    "teacher_revision",
    "teacher_licence",
    "captions",
    "evaluation",
)
TEMPLATE = """---
{{ card_data }}
---

# LightGen student

A text-to-image model that draws tokens in random order, a few at a time (masked
autoregression), each with a small diffusion head. It was distilled from a larger model's pictures
with the method of LightGen (arXiv 2503.08619). It has {{ parameters }} parameters and draws
{{ size }} x {{ size }} pixels by default, other sizes in multiples of {{ unit }}.

## How to use

It needs the `lightgen` package. Weights are safetensors; no code of this folder is run.

```python
import torch
from lightgen_model.pipeline import LightGenPipeline

pipe = LightGenPipeline.from_pretrained("path/to/this/folder")
picture = pipe("a red circle", generator=torch.Generator().manual_seed(0)).images[0]
picture.save("picture.png")
```

To draw a part of a picture anew, give `image` and `mask_image` (white: draw anew). Of a prompt the
first {{ text_length }} tokens are read. The empty prompt is the learned null text. Negative prompts
are not supported, since the student was trained with none. Load it in `torch.bfloat16` to halve
its memory; T5 overflows in float16.

## Licence

Weights: {{ licence }}. What the teacher's licence says of models trained on its pictures holds as
well, see below. The autoencoder and the text encoder in this folder keep their own licences.

## Training

| what | value |
|---|---|
| teacher, who drew the training pictures | {{ teacher }} |
| revision of the teacher | {{ teacher_revision }} |
| licence of the teacher | {{ teacher_licence }} |
| captions | {{ captions }} |
| autoencoder | {{ autoencoder }} |
| text encoder | {{ text_encoder }} |

## Evaluation

{{ evaluation }}

## Limits

- It knows what its captions and its teacher knew, with their gaps and biases.
- It learns at {{ size }} pixels first; sizes far from those of its training look worse.
- Counting, positions and written words are weak in models of this size.
- It has no filter for prompts or pictures.

## Where from

{{ provenance }}
"""


def render(config: ModelConfig, num_parameters: int, about: Mapping[str, str]) -> str:
    """The card's text."""
    about = {name: _public(value) for name, value in about.items()}
    known = {name: about.get(name) or UNKNOWN for name in NAMED}
    licence = known.pop("licence")
    rest = [f"- {name}: {value}" for name, value in sorted(about.items()) if name not in NAMED]
    data = ModelCardData(
        license=None if licence == UNKNOWN else licence.lower(),
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["lightgen", "masked-autoregressive", "distillation"],
    )
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE,
        licence=licence,
        parameters=f"{num_parameters / 1e6:.3g} million",
        size=config.base_image_size,
        unit=config.token_pixels,
        text_length=config.text_length,
        provenance="\n".join(rest) or UNKNOWN,
        **known,
    )
    return str(card)


def _public(value: str) -> str:
    """The last part alone of a place on this machine, which nobody else can follow."""
    return Path(value).name if Path(value).is_absolute() else value
