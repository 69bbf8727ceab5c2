"""Subsets: nested by construction, of the kind asked for, and the others' pictures stay."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import diversity, student, subsets
from pipeline.batches import mean_latents
from pipeline.config import HashedEmbedding, SubsetConfig, load_run
from pipeline.draws import row_generators
from pipeline.embeddings import embed
from pipeline.pretraining import PhaseData
from pipeline.shapes.grammar import sample_captions

TEXTS = tuple(dict.fromkeys(sample_captions(300, 3)))
IDS = tuple(f"id-{number}" for number in range(len(TEXTS)))
EMBEDDING = HashedEmbedding(kind="hashed", dimensions=8)
CHOICES = ("random", "diverse", "narrow")


def rows(choice: str, number: int, seed: int = 0) -> set[int]:
    values = SubsetConfig(
        choice=choice, num_captions=number, clusters=20, embedding=EMBEDDING, seed=seed
    )
    return set(subsets.chosen(IDS, TEXTS, values).tolist())


@pytest.mark.parametrize("choice", CHOICES)
def test_a_smaller_subset_lies_within_a_larger_one(choice: str) -> None:
    sizes = (1, 40, len(IDS))
    sets = [rows(choice, size) for size in sizes]
    assert [len(each) for each in sets] == list(sizes)
    assert all(small < large for small, large in pairwise(sets))


@settings(max_examples=20)
@given(st.permutations(range(30)), st.integers(1, 30), st.integers(0, 9))
def test_a_random_subset_follows_no_order(order: list[int], number: int, seed: int) -> None:
    values = SubsetConfig(num_captions=number, seed=seed)
    plain = {IDS[row] for row in subsets.chosen(IDS[:30], TEXTS[:30], values)}
    ids, texts = [IDS[n] for n in order], [TEXTS[n] for n in order]
    assert {ids[row] for row in subsets.chosen(ids, texts, values)} == plain


def test_other_seeds_choose_others() -> None:
    for choice in ("random", "narrow"):
        assert rows(choice, 60, 0) != rows(choice, 60, 1)


def test_diverse_spans_more_than_random_and_narrow_less() -> None:
    vectors = embed(TEXTS, EMBEDDING, 0, "cpu")
    clusters = diversity.clusters_of(vectors, 20, 0)
    spans = {}
    for choice in CHOICES:
        kept = np.isin(np.arange(len(IDS)), list(rows(choice, 60)))
        spans[choice] = diversity.coverage(clusters, kept)[1]
    assert spans["diverse"] > spans["random"] > 2 * spans["narrow"]
    assert spans["diverse"] == pytest.approx(1, abs=0.02)


def test_a_share_is_of_all_and_never_none() -> None:
    assert len(subsets.chosen(IDS, TEXTS, SubsetConfig(share=0.25))) == round(len(IDS) / 4)
    assert len(subsets.chosen(IDS, TEXTS, SubsetConfig(share=1e-9))) == 1


@pytest.mark.parametrize("values", [{}, {"share": 0.1, "num_captions": 3}, {"share": 1.5}])
def test_how_many_is_said_once_and_can_be(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SubsetConfig(**values)  # type: ignore[arg-type]


def test_more_captions_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"student.subset.num_captions: 9999, but \d+ captions"):
        subsets.chosen(IDS, TEXTS, SubsetConfig(num_captions=9999))


def test_batches_hold_captions_of_the_subset_alone(debug_run, walk) -> None:
    config = debug_run({"student.subset": {"num_captions": 5}, "features.latents": "means"})
    upstream = walk(config)
    kept = subsets.subset_of(config, upstream)
    data = PhaseData(config, upstream).batches(0, config.student.phases[0])
    captions = data.source.whole("caption_id").to_pylist()
    assert data.num_rows == sum(each in kept for each in captions) < len(captions)
    taken = {row for step in range(9) for row in data.of_step(step).tolist()}
    assert {captions[row] for row in taken} == kept
    rows = data.of_step(1)[2:]
    batch = data.take(1, [2, 3], row_generators(0, 0, [2, 3]))
    place = (data.cells, data.scale, data.shift)
    means = mean_latents(data.source.take(rows)["means"], "means", *place)
    assert batch.latents.equal(means)
    length = batch.states.shape[1]
    assert batch.states.equal(data.text.take(data.text_rows[rows], length)[0])


def test_a_run_without_a_subset_is_named_as_before(debug_run, walk, train) -> None:
    config = debug_run()
    upstream = walk(config)
    values = student.slice_of(config.student)
    assert "subset" not in values
    assert "until" not in values
    part = debug_run({"student.subset": {"num_captions": 5}})
    assert student.folder(part, upstream) != student.folder(config, upstream)
    seen = student.describe(part, upstream, train(part, upstream))
    assert seen.reasons == {"not in the subset": seen.rejected}
    assert 0 < seen.kept < seen.rows_in
    assert load_run("tiny").student.subset is None
