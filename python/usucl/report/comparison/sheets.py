"""Frames of tested patients beside those that each arm finds most like them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from torchvision.io import encode_jpeg

from usucl.comparison.analysis.experiment import Experiment
from usucl.comparison.design.subject import Subject
from usucl.comparison.measurement.neighbours import Neighbour, Neighbours
from usucl.data import VideoError, load_frames
from usucl.report.page import address, breakable, escape, folded, lines
from usucl.report.wording import number

TILE, QUALITY = 128, 85
LABELS = 3
"""Most columns of labels that a caption has."""

_Pictures: TypeAlias = Mapping[tuple[str, int], str]


def neighbours_sheet(experiment: Experiment, subject: Subject) -> str:
    """Returns the queries of the first seed, each with the nearest frames of every arm.

    It is empty if no run has kept any. Videos that cannot be read have captions alone.
    """
    by_arm = _of_first_seed(experiment)
    if not by_arm:
        return ""
    pictures = _pictures(by_arm, subject)
    queries = [found.query for found in next(iter(by_arm.values()))]
    parts = []
    for place, query in enumerate(queries):
        rows = [_row("Query", [query], query, subject, pictures)]
        for arm, found in by_arm.items():
            title = experiment.title_of(arm)
            rows.append(_row(title, found[place].nearest, query, subject, pictures))
        title = f"Query: {query.video_id}, frame {query.frame}"
        parts.append(folded(title, lines(*rows), is_open=not place))
    return lines('<div class="sheet">', *parts, "</div>")


def _of_first_seed(experiment: Experiment) -> dict[str, tuple[Neighbours, ...]]:
    """Returns the neighbours by arm, of the first run in which most arms have the same queries."""
    kept = [r for r in experiment.results if r.neighbours]
    if not kept:
        return {}
    seed, fold = min((r.seed, r.fold) for r in kept)
    of_run = {r.arm: r.neighbours for r in kept if (r.seed, r.fold) == (seed, fold)}
    return {arm.name: of_run[arm.name] for arm in experiment.arms if arm.name in of_run}


def _pictures(by_arm: Mapping[str, Sequence[Neighbours]], subject: Subject) -> _Pictures:
    """Returns the addresses of all pictures; each video is opened once."""
    wanted: dict[str, set[int]] = {}
    for found in by_arm.values():
        for query, nearest in found:
            for shown in (query, *nearest):
                wanted.setdefault(shown.video_id, set()).add(shown.frame)
    entries = {entry.id: entry for entry in subject.catalog}
    made = {}
    for name, numbers in wanted.items():
        frames = sorted(numbers)
        try:
            images = load_frames(entries[name], frames, TILE)
        except (KeyError, IndexError, VideoError):
            continue
        for frame, image in zip(frames, images, strict=True):
            jpeg = encode_jpeg(image, QUALITY).numpy().tobytes()
            made[name, frame] = address(jpeg, "jpeg")
    return made


def _row(
    title: str,
    frames: Sequence[Neighbour],
    query: Neighbour,
    subject: Subject,
    pictures: _Pictures,
) -> str:
    tiles = "".join(_tile(shown, query, subject, pictures) for shown in frames)
    return f'<div class="tiles six"><p>{escape(title)}</p>{tiles}</div>'


def _tile(shown: Neighbour, query: Neighbour, subject: Subject, pictures: _Pictures) -> str:
    alt = escape(f"frame {shown.frame} of {shown.video_id}")
    source = pictures.get((shown.video_id, shown.frame))
    image = f'<img alt="{alt}" src="{source}">' if source else "cannot be read"
    caption = [] if shown is query else [f"<b>{number(shown.similarity, '.3f')}</b>"]
    caption += [str(breakable(shown.video_id)), f"frame {shown.frame}"]
    caption += _labels(shown, query, subject)
    return f"<figure>{image}<figcaption>{'<br>'.join(caption)}</figcaption></figure>"


def _labels(shown: Neighbour, query: Neighbour, subject: Subject) -> Iterator[str]:
    """Yields the labels of a frame; one that the query does not share is set apart."""
    numbers = {entry.id: i for i, entry in enumerate(subject.catalog)}
    for task in subject.tasks[:LABELS]:
        own, asked = (
            int(task.truth[numbers[n.video_id]][n.frame]) if n.video_id in numbers else -1
            for n in (shown, query)
        )
        if own >= 0:
            text = escape(f"{task.name}: {task.classes[own]}")
            yield text if asked in (own, -1) else f'<span class="worse">{text}</span>'
