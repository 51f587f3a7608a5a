"""What a run is: when, how and of what it was made, whether it learned, and how to use it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from usucl._files import DamagedFileError, read_tensors
from usucl._progress import duration
from usucl.models import usage
from usucl.report.page import (
    Html,
    breakable,
    code,
    escape,
    folded,
    isolated,
    lines,
    paragraph,
    terms,
)
from usucl.report.record import RunRecord
from usucl.report.wording import count, number
from usucl.run_folder import RunFolder

COLLAPSED = -0.1
"""Uniformity above this: typical pairs lie within 0.22 of each other on the unit sphere."""

MOST_GUARDED = 3  # videos that are named

UNMOVED = 1e-5
"""Relative change of the weights below which nothing was learned: rounding, not steps."""


def facts(record: RunRecord) -> str:
    """Returns what identifies the run and its report; what was not recorded is said so."""
    run, evaluation = record.facts, record.evaluation
    encoder, seconds = record.encoder, run.get("seconds")
    versions = run.get("versions") or (evaluation.versions if evaluation else {})
    texts = {
        "Run": record.folder.path.absolute().name,
        "Report written": _when(datetime.now(timezone.utc).isoformat()),
        "Training started": _when(run.get("started")),
        "Training finished": _when(run.get("finished")) or ("not finished" if run else ""),
        "Training time": f"{duration(seconds)} (h:min:s)"
        if isinstance(seconds, int | float)
        else "",
        "Command": Html(f"<code>{escape(_command(run.get('command', '')))}</code>"),
        "Commit": str(run.get("commit") or ("not known" if run else "")),
        "Trained on": _machine(run),
    }
    missing = [name for name, text in texts.items() if text in ("", "<code></code>")]
    texts = {name: text for name, text in texts.items() if name not in missing}
    if missing:
        texts["Not recorded"] = f"{', '.join(missing).lower()}: an earlier version trained it"
    network = f"{backbone(encoder)}, {encoder.get('image_size', '?')} px"
    texts |= {
        "Encoder": f"{network}, embeddings of {encoder.get('dim', '?')} numbers",
        "Length": _length(record),
        "Method": f"{record.config.method}, seed {record.config.seed}",
        "Versions": ", ".join(f"{name} {v}" for name, v in versions.items() if v),
    }
    if evaluation is not None:
        machine, cores = evaluation.machine, count(evaluation.machine.cpu_cores, "CPU core")
        where = filter(None, (machine.system, cores, machine.accelerator))
        texts |= {
            "Evaluated on": ", ".join(where),
            "Data measured": evaluation.data,
        }
    return terms({name: text for name, text in texts.items() if text}, "facts")


def byline(record: RunRecord) -> str:
    """Returns the line under the title: which run, when, how long, by which version."""
    run = record.facts
    version = run.get("usucl")
    if version is None and record.evaluation is not None:
        version = record.evaluation.versions.get("usucl")
    trained = f"trained {_when(run.get('started'))}" if run.get("started") else ""
    seconds = run.get("seconds")
    if trained and isinstance(seconds, int | float):
        trained += f" for {duration(seconds)}"
    parts = (
        f"Run {record.folder.path.absolute().name}",
        trained,
        f"report of {_when(datetime.now(timezone.utc).isoformat())}",
        f"USUCL {version}" if version else "",
        f"commit {str(run['commit'])[:12]}" if run.get("commit") else "",
    )
    return " · ".join(filter(None, parts))


def failures(record: RunRecord) -> list[str]:
    """Returns the signs that a run has learned nothing, each as a sentence; empty if none."""
    texts = []
    change = _change(record)
    if change is not None and change < UNMOVED:
        how = "are those that it started with" if change == 0 else "hardly differ from its first"
        texts.append(
            f"Training did not change the encoder: its weights {how}. Where its figures differ "
            "from those before training, only the statistics of its batch normalisation did it."
        )
    if record.config.optimiser.lr == 0:
        texts.append("The learning rate is 0.")
    _, loss = record.series("loss")
    if len(loss) and not loss.any():
        texts.append(
            f"The loss was 0 at all {len(loss)} logged steps: no anchor found a negative, so there "
            "was nothing to learn from."
        )
    _, short = record.series("short_of_negatives")
    _, intra = record.series("intra_similarity")
    _, cross = record.series("cross_similarity")
    if len(short) and not len(intra) and not len(cross):
        texts.append("No negative was found at any logged step.")
    spread = record.evaluation.geometry["uniformity"]["trained"] if record.evaluation else None
    if spread is not None and spread > COLLAPSED:
        texts.append(
            f"The trained embeddings nearly coincide (uniformity {number(spread)}): this encoder "
            "has collapsed, and its figures below say little else."
        )
    return texts


def doubts(record: RunRecord) -> list[str]:
    """Returns what a reader has to know before the figures, though it is no failure."""
    texts = []
    if record.warnings:
        where = "Training" if record.is_of_own_data else "the report of the run"
        texts.append(f"Training gave {count(len(record.warnings), 'warning')}: see {where}.")
    start = started_from(record)
    if start:
        texts.append(
            f"Training started from {start}: what is called random initialisation here are those "
            "weights, not random ones."
        )
    _, loss = record.series("loss")
    if len(loss) >= 10 and loss.any():
        tenth = max(1, len(loss) // 10)
        first, last = float(loss[:tenth].mean()), float(loss[-tenth:].mean())
        if last >= first:
            texts.append(
                f"The loss did not fall: {first:.2f} at first, {last:.2f} in the end. A curriculum "
                "that makes negatives harder can do that; an encoder that does not learn, too."
            )
    run = record.facts
    if run and run.get("finished") is None:
        texts.append("Training was not finished: this is the encoder of its last whole epoch.")
    return texts


def started_from(record: RunRecord) -> str:
    """Returns which weights a run started from; empty if they were random."""
    encoder = record.config.encoder
    if encoder.pretrained:
        return "ImageNet weights"
    return f"the weights {encoder.weights}" if encoder.weights is not None else ""


def how_to_use(record: RunRecord) -> str:
    """Returns the code that loads the encoder, and the commands that come next."""
    run = shlex.quote(str(record.folder.path))
    data = shlex.quote(str(record.config.data or "my/videos"))
    bank = shlex.quote(f"{record.folder.path}-bank")
    commands = "\n".join(
        [
            f"usucl embed {run} {data}",
            f"usucl bank build {run} {data} --out {bank}",
            f"usucl evaluate {run} other/videos",
        ]
    )
    return lines(
        paragraph("Replace the paths where this page is no longer beside its run."),
        code(usage(record.folder.path), "Python"),
        paragraph("In the shell: embeddings of all frames, a bank to search, other data."),
        code(commands, "Commands"),
    )


def held_out(record: RunRecord) -> str:
    """Returns the names of the videos that pretraining did not see; empty if there are none."""
    rows = [row for row in record.split if row.get("part") == "held_out"]
    if record.evaluation is not None:
        names = record.evaluation.held_out
        if names:
            known = {row["video_id"]: row for row in rows}
            rows = [known.get(name, {"video_id": name}) for name in names]
    if not rows:
        return ""
    entries = []
    for row in rows:
        about = [row.get("group", ""), row.get("label", "")]
        about = [isolated(a) for a in about if a and a != row["video_id"]]
        small = f" <small>{' · '.join(about)}</small>" if about else ""
        entries.append(f"<li>{breakable(row['video_id'])}{small}</li>")
    title = f"{count(len(rows), 'held-out video')}, by name"
    return folded(title, f'<ul class="names">{"".join(entries)}</ul>', is_open=len(rows) <= 60)


def guarded(record: RunRecord) -> Html:
    """Returns what the pixel guard refused, in a sentence; empty for a run without one."""
    limit = record.config.sampling.guard
    if limit is None:
        return Html("")
    shares: dict[str, float] = {}  # greatest of all windows
    for row in record.guard:
        try:
            share = int(row["refused"]) / int(row["pairs"])
        except (ValueError, ZeroDivisionError) as error:
            raise DamagedFileError(record.folder.guard, f"pairs and refused: {error}") from error
        shares[row["video_id"]] = max(share, shares.get(row["video_id"], 0.0))
    text = (
        f"The pixel guard kept frames whose thumbnails correlate by more than {limit:g} from being "
        "negatives of each other. "
    )
    if not record.folder.guard.is_file():
        return escape(text.rstrip())
    if not shares:
        return escape(f"{text}No two frames within a window were so much alike.")
    most = sorted(shares, key=lambda name: (-shares[name], name))[:MOST_GUARDED]
    named = ", ".join(f"{shares[name]:.0%} in {isolated(name)}" for name in most)
    more = len(shares) - len(most)
    others = f" and less in {count(more, 'other video')}" if more else ""
    file = record.folder.guard.name
    return Html(
        f"{escape(text)}Of the pairs within a window, it refused up to {named}{others} ({file})."
    )


def backbone(encoder: Mapping[str, Any]) -> str:
    """Returns the name of an encoder's network, as a reader knows it."""
    return str(encoder.get("backbone", "network")).replace("resnet", "ResNet-")


def _length(record: RunRecord) -> str:
    steps = record.facts.get("steps_done")
    epochs = record.facts.get("epochs_done")
    if steps is None:
        logged = record.series("loss")[0]
        told = f"{int(logged[-1]):,} steps logged" if logged.size else "no step logged"
        return f"{count(record.config.epochs, 'epoch')}, {told}"
    return f"{epochs} of {count(record.config.epochs, 'epoch')}, {count(steps, 'step')}"


def _command(command: Any) -> str:
    return command if isinstance(command, str) else shlex.join(map(str, command))


def _when(text: Any) -> str:
    if not isinstance(text, str):
        return ""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return text


def _machine(run: Mapping[str, Any]) -> str:
    machine, device = run.get("machine"), run.get("device")
    if isinstance(machine, Mapping):
        parts = [machine.get("system"), machine.get("accelerator")]
        if machine.get("cpu_cores"):
            parts.insert(1, count(machine["cpu_cores"], "CPU core"))
        machine = ", ".join(str(p) for p in parts if p)
    return ", ".join(str(part) for part in (machine, device and f"device {device}") if part)


def _change(record: RunRecord) -> float | None:
    """Returns how far the weights moved, relative to their size; None if they cannot be read."""
    folders = record.folder, RunFolder(record.folder.initial)
    try:
        after, before = (read_tensors(folder.encoder_weights)[0] for folder in folders)
    except (OSError, ValueError):
        return None
    moved = size = 0.0
    for name, first in before.items():
        if name in after and first.is_floating_point() and "running_" not in name:
            if after[name].shape != first.shape:
                return None
            moved += float((after[name].double() - first.double()).square().sum())
            size += float(first.double().square().sum())
    return (moved / size) ** 0.5 if size else None
