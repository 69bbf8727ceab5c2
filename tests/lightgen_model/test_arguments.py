"""Arguments: one form each, and a generator of its own for every image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightgen_model.arguments import read_embeds, read_generators, read_iterations, read_side
from lightgen_model.config import debug


def numbers(generators: list[torch.Generator]) -> list[float]:
    return [float(torch.rand((), generator=one)) for one in generators]


@given(st.integers(-40, 4000))
def test_a_side_is_whole_tokens_or_the_nearest_are_named(pixels: int) -> None:
    if pixels > 0 and pixels % 16 == 0:
        assert read_side("height", pixels, debug()) == pixels
        return
    with pytest.raises(ValueError, match=f"height {pixels} must be a multiple") as caught:
        read_side("height", pixels, debug())
    nearest = [int(word) for word in str(caught.value).split("nearest: ")[1].split(" and ")]
    assert all(read_side("height", each, debug()) == each for each in nearest)
    assert all(abs(each - pixels) < 16 for each in nearest) or pixels < 16


@pytest.mark.parametrize(("tokens", "steps"), [(16, 16), (64, 64), (1024, 64)])
def test_by_default_there_is_a_step_a_token_up_to_64(tokens: int, steps: int) -> None:
    assert read_iterations(None, tokens) == steps


def test_a_list_of_generators_serves_one_image_each() -> None:
    seeds = [torch.Generator().manual_seed(s) for s in (1, 2)]
    expected = numbers([torch.Generator().manual_seed(s) for s in (1, 2)])
    assert numbers(read_generators(seeds, 2)) == expected


def test_a_generator_that_occurs_again_gives_other_numbers() -> None:
    one = torch.Generator().manual_seed(1)
    drawn = numbers(read_generators([one] * 3, 3))
    assert len(set(drawn)) == 3
    assert drawn == numbers(read_generators(torch.Generator().manual_seed(1), 3))
    assert drawn[0] == numbers([torch.Generator().manual_seed(1)])[0]


def test_a_mask_of_embeddings_has_no_hole() -> None:
    embeds = torch.zeros(1, 16, 128)
    mask = torch.ones(1, 16)
    assert bool(read_embeds(embeds, None, debug())[1].all())
    mask[0, 3] = 0
    with pytest.raises(ValueError, match="has a hole; allowed: ones, then zeros"):
        read_embeds(embeds, mask, debug())
    with pytest.raises(ValueError, match=r"of shape \(1, 15\); allowed"):
        read_embeds(embeds, mask[:, 1:], debug())
    with pytest.raises(ValueError, match=r"\(1, 15, 128\); allowed: \(number of prompts, 16, 128"):
        read_embeds(embeds[:, 1:], None, debug())
