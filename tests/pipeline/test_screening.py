"""Every row has one reason at most, the first that is found; the first source wins."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import screening
from pipeline.captions import harvest
from pipeline.config import CaptionsConfig, DecontaminationConfig
from pipeline.screening import Screened, blocked_terms
from pipeline.signatures import signatures_of

LONG = "a small wooden house with a green door stands beside a quiet lake under tall pine trees"


def files(folder: Path, **sets: list[str]) -> list[dict]:
    sources = []
    for name, captions in sets.items():
        path = folder / f"{name}.txt"
        path.write_text("\n".join(captions) + "\n", "utf-8")
        given = {"kind": "files", "name": name, "paths": [str(path)], "format": "text"}
        sources.append({**given, "licence": "MIT"})
    return sources


def screened(folder: Path, sources: list[dict], **values) -> Screened:
    config = CaptionsConfig.model_validate({"sources": sources, **values})
    return harvest(folder / "root", config)


def found(result: Screened) -> list[tuple[str, str]]:
    whole = slice(0, len(result.codes))
    reasons, matches = result.reason_of(whole), result.match_of(whole)
    return list(zip(reasons.to_pylist(), matches.to_pylist(), strict=True))


def test_blocked_words_are_whole_words_whatever_their_case(tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("# unwanted\ngun\nBare  skin # a phrase\nc++\nпистолет\n\n", "utf-8")
    captions = [
        "a GUN.",
        "a gunner",
        "bare skin",
        "C++ code",
        "c code",
        "пистолет тут",
    ]
    result = screened(tmp_path, files(tmp_path, a=captions), blocklist=[str(terms)])
    hit = screening.BLOCKED
    assert found(result) == [
        (hit, "gun"), ("", ""), (hit, "bare skin"), (hit, "c++"), ("", ""), (hit, "пистолет")
    ]  # fmt: skip


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), max_size=5))
def test_any_word_can_be_blocked(tmp_path_factory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("terms") / "terms.txt"
    path.write_text("\n".join(lines), "utf-8")
    import pyarrow as pa

    terms = blocked_terms([str(path)])
    captions = pa.chunked_array([[f"see {term} here" for term in terms]], pa.string())
    assert sorted(screening.blocked(captions, terms)) == list(range(len(terms)))


def test_no_benchmark_prompt_or_near_one_stays(tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    prompts = files(tmp_path, bench=["a photo of a bench", LONG])
    captions = ["Bench!", "a bench", "a benchmark", LONG.replace("quiet ", ""), "a red cat"]
    result = screened(tmp_path, files(tmp_path, a=captions), decontamination={"prompts": prompts})
    hit = screening.BENCHMARK
    assert found(result) == [
        (hit, "bench bench.txt:1"),
        (hit, "bench bench.txt:1"),
        ("", ""),
        (hit, "bench bench.txt:2"),
        ("", ""),
    ]


@pytest.mark.parametrize(
    ("caption", "refused"),
    [
        ("An image of a photo of a clock", True),
        ("a clock, high quality, 4k", True),
        ("a photo of a colck", True),
        ("a clock photo", True),
        ("a photo of two cars", True),
        ("two cats", False),
        ("a wooden clock", False),
        ("a clock and two cars", False),
        ("high quality 4k photo", False),
        ("", False),
    ],
)
def test_a_short_prompt_in_other_dress_is_refused_and_another_scene_is_not(
    caption: str, refused: bool
) -> None:
    pytest.importorskip("rensa")
    prompts = [("a photo of a clock", "p:1"), ("a photo of two cars", "p:2"), ("a photo", "p:3")]
    config = DecontaminationConfig.model_validate(
        {
            "prompts": [
                {"kind": "files", "name": "p", "paths": ["p"], "format": "text", "licence": "MIT"}
            ]
        }
    )
    assert bool(screening.against(prompts, [caption], signatures_of([caption]), config)) is refused


def test_near_duplicates_name_the_caption_they_repeat_over_all_sources(tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    sources = files(tmp_path, a=["a dog", LONG], b=[LONG, LONG.upper(), "the dog."])
    result = screened(tmp_path, sources, near_duplicates={})
    ids = result.table["caption_id"].to_pylist()
    near = screening.NEAR_DUPLICATE
    assert found(result) == [
        ("", ""), ("", ""), (screening.DUPLICATE, ""), (near, ids[1]), (near, ids[0])
    ]  # fmt: skip


def test_the_first_reason_stands(tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("gun\n")
    captions = ["a gun", "a gun", "gun " * 30, "x", ""]
    result = screened(
        tmp_path, files(tmp_path, a=captions), blocklist=[str(terms)], max_characters=50
    )
    assert [reason for reason, _ in found(result)] == [
        screening.BLOCKED, screening.BLOCKED, screening.TOO_LONG, screening.TOO_SHORT, "no caption"
    ]  # fmt: skip


def test_other_languages_are_rejected_and_short_captions_pass(tmp_path: Path) -> None:
    pytest.importorskip("py3langid")
    captions = [
        LONG,
        "Un chat noir dort sur une chaise.",
        "кошка сидит на столе",
        "un chat",
    ]
    result = screened(tmp_path, files(tmp_path, a=captions), language={})
    assert [reason for reason, _ in found(result)] == ["", screening.FOREIGN, screening.FOREIGN, ""]


def test_what_a_screening_lacks_is_told(tmp_path: Path) -> None:
    values = {
        "sources": files(tmp_path, a=["x"]),
        "blocklist": [str(tmp_path / "none.txt")],
        "decontamination": {"prompts": [files(tmp_path, b=["y"])[0] | {"paths": ["nowhere"]}]},
    }
    sentences = " ".join(screening.missing(CaptionsConfig.model_validate(values)))
    assert "none.txt is not there" in sentences
    assert "no file matches 'nowhere'" in sentences
