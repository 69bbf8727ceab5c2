from pipeline.caption_sources import all_rows, build, missing
from pipeline.config import ShapesCaptions
from pipeline.shapes.grammar import held_out, parse


def test_it_gives_the_asked_number_of_captions_none_held_out() -> None:
    config = ShapesCaptions(kind="shapes", num_captions=300, seed=4)
    rows = list(all_rows(build(config)))
    assert len(rows) == 300
    assert all(row.text and parse(row.text) and not held_out(row.text) for row in rows)
    assert rows[2].place == "shapes:3"
    assert rows == list(all_rows(build(config)))
    assert missing(config) == []


def test_the_fingerprint_follows_the_values() -> None:
    one, other = (
        build(ShapesCaptions(kind="shapes", num_captions=3, seed=seed)) for seed in (0, 1)
    )
    assert one.fingerprint() == one.fingerprint() != other.fingerprint()
