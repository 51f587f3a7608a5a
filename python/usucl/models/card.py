"""The model card: what an exported encoder is, was trained on, and reached, for whoever gets it.

It counts videos and patients, and names none of them: no folder, file, patient or label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from usucl._files import DamagedFileError, read_json, write_atomically
from usucl._tables import read_table
from usucl.data.catalog.tables.split_table import HELD_OUT, PATIENT_KNOWN, SPLIT, TRAIN
from usucl.models.encoder import FrameEncoder
from usucl.run_folder import RunFolder

_MARK = "<!-- model card of usucl for {} -->"
_NAMING = (
    "data",
    "patient_pattern",
    "label",
    "sweep",
    "held_out",
)  # options that may name patients
_ENCODERS = ("trained", "random", "pixels")
NOT_STATED = "not stated"


def card_path(file: Path) -> Path:
    """Returns where the card of an exported file goes: no other text is ever replaced."""
    readme = file.with_name("README.md")
    own = not readme.exists() or _is_card_of(readme, file)
    return readme if own else file.with_name(f"{file.name}.md")


def write_card(
    run: RunFolder, encoder: FrameEncoder, file: Path, usage: str, licence: str | None
) -> Path:
    """Writes the card of a file.

    Args:
        run: the run that the encoder is of; whatever it lacks, the card leaves out.
        encoder: its encoder.
        file: the exported file, beside which the card goes.
        usage: the lines of Python that use the file.
        licence: licence of the data, None if it is not stated.

    Raises:
        OSError: it cannot be written.
    """
    path = card_path(file)
    text = "\n".join(_lines(run, encoder, file, usage, licence or NOT_STATED)) + "\n"
    write_atomically(path, text.encode("utf-8", errors="backslashreplace"))
    return path


def _is_card_of(readme: Path, file: Path) -> bool:
    try:
        return _MARK.format(file.name) in readme.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _lines(
    run: RunFolder, encoder: FrameEncoder, file: Path, usage: str, licence: str
) -> Iterator[str]:
    config, facts = encoder.config, _read(run.facts)
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    yield from ("---", "tags: [ultrasound, contrastive-learning, image-feature-extraction]")
    yield from ("library_name: usucl", "---", "", _MARK.format(file.name), "")
    yield f"# {config.backbone}, pretrained on ultrasound videos"
    yield ""
    yield (
        f"`{file.name}` is an encoder of single ultrasound frames: {config.backbone} at "
        f"{config.image_size} px with {config.channels} "
        f"{'channel' if config.channels == 1 else 'channels'}, {weights / 1e6:.1f} million "
        f"weights with the projection head to {config.dim} numbers (which weight files of a "
        "library leave out). It was pretrained without labels, by contrasting frames of videos, "
        "with USUCL."
    )
    yield from ("", "## Use", "", "```python", *usage.splitlines(), "```", "")
    yield from ("## Intended use", "")
    yield (
        "Features for research: a start for fine-tuning, linear probes, and search for similar "
        "frames. **It is not a medical device.** It was not tested for diagnosis, and must not be "
        "used to decide on the care of a patient. Expect it to be worse on devices, organs and "
        "patients that its data lack; measure it on patients of your own that it has not seen."
    )
    yield from ("", "## Data", "")
    yield from _data(run, facts)
    yield f"- Licence of the data: {licence}"
    yield from ("", "## Training", "")
    yield from _training(encoder, facts)
    if options := _options(run):
        yield from ("", "The whole configuration, without what may name patients:", "")
        yield from ("```yaml", *options.splitlines(), "```")
    yield from ("", "## Figures", "")
    yield from _figures(_read(run.evaluation))


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except (OSError, DamagedFileError):
        return {}


def _data(run: RunFolder, facts: Mapping[str, Any]) -> Iterator[str]:
    try:
        rows = read_table(run.split, SPLIT)
    except (OSError, ValueError):
        rows = []
    for part, what in ((TRAIN, "Trained on"), (HELD_OUT, "Held out, by patient")):
        some = [row for row in rows if row["part"] == part]
        if some:
            groups = len({row["group"] for row in some})
            known = all(row.get(PATIENT_KNOWN, "yes") == "yes" for row in some)
            patients = f"{groups} {'patient' if groups == 1 else 'patients'}"
            yield (
                f"- {what}: {len(some)} {'video' if len(some) == 1 else 'videos'}, "
                f"{patients if known else 'patients not known of all'}"
            )
    if not rows:
        yield "- Not recorded"
    if isinstance(start := facts.get("start"), Mapping):
        yield f"- Started from the weights {Path(str(start.get('file'))).name}"


def _training(encoder: FrameEncoder, facts: Mapping[str, Any]) -> Iterator[str]:
    if encoder.config.pretrained:
        yield "- Started from ImageNet weights"
    if "epochs_done" in facts:
        yield f"- {facts['epochs_done']} epochs of {facts.get('steps_done')} steps in all"
    versions = facts.get("versions") or {}
    named = [f"{name} {versions[name]}" for name in ("torch", "torchvision") if name in versions]
    if facts.get("usucl"):
        yield f"- Versions: {', '.join(['usucl ' + str(facts['usucl']), *named])}"
    yield f"- Normalisation layers: {encoder.config.norm}; head: {encoder.config.head}"


def _options(run: RunFolder) -> str:
    try:
        options = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return ""
    if not isinstance(options, dict):
        return ""
    options = {name: value for name, value in options.items() if name not in _NAMING}
    encoder = options.get("encoder")
    if isinstance(encoder, dict) and encoder.get("weights") is not None:
        options["encoder"] = {**encoder, "weights": Path(str(encoder["weights"])).name}
    return str(yaml.safe_dump(options, sort_keys=False, default_flow_style=None, width=90))


def _figures(evaluation: Mapping[str, Any]) -> Iterator[str]:
    rows = list(_estimates(evaluation, ()))
    if not rows:
        yield "Not evaluated: `usucl evaluate RUN DATA`, and export again."
        return
    protocol = evaluation.get("protocol") or {}
    counts = (evaluation.get("counts") or {}).items()
    parts = [f"{c.get('videos')} {part.replace('_', ' ')} videos" for part, c in counts]
    yield (
        f"Measured on {protocol.get('measured_on', 'videos')} ({', '.join(parts)}); "
        f"in brackets: {protocol.get('interval', 'interval')}. `random` is the network before "
        "training, `pixels` the frame itself."
    )
    yield from ("", f"| figure | {' | '.join(_ENCODERS)} |", "| --- | --- | --- | --- |")
    for names, figures in rows:
        cells = [_cell(figures.get(encoder)) for encoder in _ENCODERS]
        yield f"| {' / '.join(names).replace('_', ' ').replace('|', '/')} | {' | '.join(cells)} |"


def _estimates(
    content: Any, names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yields every figure of an evaluation that the encoders have, by its names."""
    if not isinstance(content, Mapping):
        return
    trained = content.get("trained")
    if isinstance(trained, Mapping) and isinstance(trained.get("value"), int | float):
        yield names, content
        return
    for name, inner in content.items():
        yield from _estimates(inner, (*names, str(name)))


def _cell(estimate: Any) -> str:
    value = estimate.get("value") if isinstance(estimate, Mapping) else None
    if not isinstance(value, int | float):
        return "-"
    low, high = estimate.get("low"), estimate.get("high")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return f"{value:.3f}"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
