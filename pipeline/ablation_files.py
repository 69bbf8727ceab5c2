"""A study on disk: `<study>.json`, `<study>.md` and `<study>.svg` in a folder.

In:    what a study found so far.
Out:   three whole files, the page with the plot beside it.
Rerun: the same finding gives the same bytes.
"""

import json
from pathlib import Path

from pipeline.ablation_plots import study_svg
from pipeline.ablation_results import Found, markdown, to_json
from pipeline.description import write_whole


def write_study(folder: Path, found: Found) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plot = folder / f"{found.name}.svg"
    write_whole(plot, study_svg(found))
    page = markdown(found, f"![{found.study.title}]({plot.name})")
    write_whole(folder / f"{found.name}.md", page.encode())
    text = json.dumps(to_json(found), indent=1) + "\n"
    write_whole(folder / f"{found.name}.json", text.encode())
