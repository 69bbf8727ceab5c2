"""What others report for GenEval, to stand beside a run's own scores.

Shares of correct pictures by tag, in the order of `TAGS`, and the overall score as it is printed.
LightGen's are of arXiv 2503.08619 (CFG 4, 64 steps), the others of the GenEval paper
(arXiv 2310.11513). All were scored with mmdet's Mask2Former and the raw prompts: a score with
other weights, or with rewritten prompts, compares only roughly.
"""

from typing import NamedTuple

SOURCE = "mmdet's Mask2Former, raw prompts; arXiv 2503.08619 and 2310.11513"


class Row(NamedTuple):
    model: str
    single_object: float
    two_object: float
    counting: float
    colors: float
    position: float
    color_attr: float
    overall: float


ROWS = (
    Row("LightGen, 256 px, 80 k steps", 0.98, 0.44, 0.36, 0.85, 0.08, 0.24, 0.49),
    Row("LightGen, 256 px", 0.99, 0.53, 0.40, 0.85, 0.13, 0.25, 0.53),
    Row("LightGen, 512 px, without DPO", 0.98, 0.58, 0.37, 0.86, 0.14, 0.28, 0.53),
    Row("LightGen, 512 px, DPO", 0.99, 0.65, 0.60, 0.87, 0.22, 0.43, 0.62),
    Row("Stable Diffusion 1.5", 0.97, 0.38, 0.35, 0.76, 0.04, 0.06, 0.43),
    Row("Stable Diffusion 2.1", 0.98, 0.51, 0.44, 0.85, 0.07, 0.17, 0.50),
    Row("Stable Diffusion XL", 0.98, 0.74, 0.39, 0.85, 0.15, 0.23, 0.55),
    Row("IF-XL", 0.97, 0.74, 0.66, 0.81, 0.13, 0.35, 0.61),
)
