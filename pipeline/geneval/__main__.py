"""GenEval for anyone's pictures, and ours for anyone's scorer.

    python -m pipeline.geneval score FOLDER --detector D --clip C --out results.jsonl
    python -m pipeline.geneval rescore results.jsonl --out again.jsonl --threshold 0.25
    python -m pipeline.geneval summary results.jsonl [other.jsonl]
    python -m pipeline.geneval export full --checkpoint aligned --out FOLDER
    python -m pipeline.geneval rewrite evaluation_metadata.jsonl --model M --endpoint URL \
        --out rewritten.jsonl

In:    a folder in GenEval's layout (`pipeline.geneval.folders`), a file of results, or a run.
Out:   a JSON line a picture and the score on stdout; a file judged again, without a model; the
       score, of two files with a paired test; a run's own pictures in GenEval's layout; or the
       prompts in longer words, for the evaluator's `rewritten`.
Rerun: pictures that were scored by the same weights are not looked at again; a kill costs one
       batch. A folder that was exported is kept.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pipeline.geneval.folders import Sample, check_pictures, open_picture, read_folder
from pipeline.geneval.prompts import read_requests
from pipeline.geneval.results import (
    Result,
    line_of,
    read_results,
    read_unfinished,
    right_by_task,
    summarise,
    write_results,
)
from pipeline.geneval.rules import PUBLISHED, Thresholds
from pipeline.seals import sha256_of
from pipeline.significance import compare

if TYPE_CHECKING:
    from pipeline.geneval.scoring import Scorer


def score(args: argparse.Namespace) -> None:
    requests = read_requests(args.prompts) if args.prompts else None
    samples = read_folder(args.folder, requests=requests, images_per_prompt=args.images)
    check_pictures(samples)
    scorer = _scorer(args.detector, args.clip, args.batch, args.device)
    partial = args.out.with_name(args.out.name + ".partial")
    unfinished = read_unfinished(partial)
    write_results(partial, unfinished)  # without a line that was cut short
    known = {
        (result.filename, result.sha256, result.judge): result
        for result in [*read_unfinished(args.out), *unfinished]
    }
    with partial.open("a", encoding="utf-8") as file:
        results = [
            result
            for first in range(0, len(samples), args.batch)
            for result in _batch(
                args.folder, samples[first : first + args.batch], scorer, known.get, file
            )
        ]
    write_results(args.out, results)
    partial.unlink()
    _print_summary(results)


def _scorer(detector: str, clip: str, batch_size: int, device: str) -> "Scorer":
    # Models and torch are loaded here: --help and a folder with faults do without.
    from pipeline.clip_models import Clip
    from pipeline.geneval.detector import Detector
    from pipeline.geneval.scoring import Scorer

    found = Detector(detector, device=device, batch_size=batch_size, place="--detector")
    return Scorer(found, Clip(clip, device=device, place="--clip"))


def _batch(
    folder: Path,
    samples: Sequence[Sample],
    scorer: "Scorer",
    known: Callable[[tuple[str, str, str]], Result | None],
    file: TextIO,
) -> list[Result]:
    """Results in the order of the samples; new ones are written before the next batch is begun."""
    keys = [
        (
            sample.path.relative_to(folder).as_posix(),
            sha256_of(sample.path),
            scorer.name,
        )
        for sample in samples
    ]
    found = {}
    for sample, key in zip(samples, keys, strict=True):
        result = known(key)
        if result is not None and result.request == sample.request:
            found[key] = result
    new = [pair for pair in zip(samples, keys, strict=True) if pair[1] not in found]
    readings = scorer.read(
        [open_picture(sample.path) for sample, _ in new], [sample.request for sample, _ in new]
    )
    for (sample, key), reading in zip(new, readings, strict=True):
        filename, sha256, judge = key
        found[key] = Result.of(filename, sample.request, reading, judge, sha256)
        file.write(line_of(found[key]))
    file.flush()
    return [found[key] for key in keys]


def rescore(args: argparse.Namespace) -> None:
    thresholds = Thresholds(
        args.threshold, args.counting_threshold, args.max_objects, args.max_overlap, args.position
    )
    results = [result.again(thresholds) for result in read_results(args.results)]
    if args.out:
        write_results(args.out, results)
    _print_summary(results)


def summary(args: argparse.Namespace) -> None:
    results = [read_results(path) for path in args.results]
    for path, each in zip(args.results, results, strict=True):
        print(f"{path}")
        _print_summary(each)
    if len(results) == 2:
        _print_comparison([str(path) for path in args.results], results)


def _print_summary(results: Sequence[Result]) -> None:
    told = summarise(results)
    rows = [(task, str(interval)) for task, interval in told.tasks.items()]
    rows += [("pictures right", str(told.pictures)), ("prompts right", str(told.prompts))]
    width = max(len(name) for name, _ in rows)
    for name, interval in rows:
        print(f"  {name.replace('_', ' '):<{width}}  {interval}")
    for judge in sorted({result.judge for result in results} - {""}):
        print(f"  judged by {judge}")


def _print_comparison(names: Sequence[str], results: Sequence[Sequence[Result]]) -> None:
    files = [{result.filename: result for result in each} for each in results]
    if files[0].keys() != files[1].keys():
        raise ValueError(
            f"{names[0]} and {names[1]} are of other pictures; a paired test needs the same names"
        )
    order = sorted(files[0])
    before, after = (right_by_task([each[name] for name in order]) for each in files)
    if before.keys() != after.keys():
        raise ValueError(f"{names[0]} and {names[1]} have other tags: {[*before]} and {[*after]}")
    print("the second less the first, paired over prompts:")
    for row in compare(
        (names[0], names[1]),
        {tag: right for tag, (right, _) in before.items()},
        {tag: right for tag, (right, _) in after.items()},
        {tag: prompts for tag, (_, prompts) in before.items()},
    ):
        print(
            f"  {row.task:<14} {row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f}), "
            f"p {row.p:.4f}, {row.gained} gained, {row.lost} lost"
        )


def export(args: argparse.Namespace) -> None:
    from pipeline.config import load_run
    from pipeline.geneval.exporting import export_run

    written, there = export_run(load_run(args.run), args.checkpoint, args.out, args.evaluator)
    print(f"{args.out}: {written} prompts written, {there - written} there already")


def rewrite(args: argparse.Namespace) -> None:
    from pipeline.config import RewriterConfig
    from pipeline.geneval.rewriting import rewrite as rewrite_all

    prompts = [request.prompt for request in read_requests(args.prompts)]
    key = args.api_key_variable
    config = RewriterConfig(model=args.model, endpoints=tuple(args.endpoint), api_key_variable=key)
    there, longer = rewrite_all(prompts, config, args.out)
    print(f"{args.out}: {there} prompts, {longer} in longer words, {there - longer} as they are")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.geneval", description="GenEval's score of pictures."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    one = commands.add_parser("score", help="score a folder in GenEval's layout")
    one.add_argument("folder", type=Path)
    one.add_argument("--detector", required=True, help="a Mask2Former: folder or hub repository")
    one.add_argument("--clip", required=True, help="a CLIP in open_clip's layout, likewise")
    one.add_argument("--out", type=Path, default=Path("results.jsonl"))
    one.add_argument("--prompts", type=Path, help="evaluation_metadata.jsonl: these and no others")
    one.add_argument("--images", type=int, help="pictures that every prompt must have")
    one.add_argument("--batch", type=int, default=8, help="pictures seen at once")
    one.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    one.set_defaults(run_command=score)
    two = commands.add_parser("rescore", help="judge results again, without a model")
    two.add_argument("results", type=Path)
    two.add_argument("--out", type=Path, help="where to write them; default: only the score")
    two.add_argument("--threshold", type=float, default=PUBLISHED.score)
    two.add_argument("--counting-threshold", type=float, default=PUBLISHED.counting_score)
    two.add_argument("--max-objects", type=int, default=PUBLISHED.max_objects)
    two.add_argument("--max-overlap", type=float, default=PUBLISHED.max_overlap)
    two.add_argument("--position", type=float, default=PUBLISHED.position)
    two.set_defaults(run_command=rescore)
    three = commands.add_parser("summary", help="the score of results; of two files, compared")
    three.add_argument("results", type=Path, nargs="+")
    three.set_defaults(run_command=summary)
    four = commands.add_parser("export", help="write a run's pictures in GenEval's layout")
    four.add_argument("run", help="a named run or a YAML file")
    four.add_argument("--checkpoint", default="aligned")
    four.add_argument("--evaluator", default="geneval", help="geneval or geneval_rewritten")
    four.add_argument("--out", type=Path, required=True)
    four.set_defaults(run_command=export)
    five = commands.add_parser("rewrite", help="the prompts in longer words, by a language model")
    five.add_argument("prompts", type=Path, help="evaluation_metadata.jsonl")
    five.add_argument("--model", required=True)
    five.add_argument("--endpoint", required=True, action="append", help="an OpenAI-format server")
    five.add_argument("--api-key-variable", help="of the environment, where the server wants a key")
    five.add_argument("--out", type=Path, default=Path("rewritten.jsonl"))
    five.set_defaults(run_command=rewrite)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse(sys.argv[1:])
    try:
        args.run_command(args)
    except ValueError as error:
        sys.exit(f"pipeline.geneval: {error}")


if __name__ == "__main__":
    main()
