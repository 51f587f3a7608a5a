"""A fine-tuned encoder with the head that tells classes, and its files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from usucl._files import DamagedFileError, read_json, read_tensors, write_json, write_tensors
from usucl.models import FrameEncoder, load_encoder, save_encoder
from usucl.models.preprocessing import Picture

WEIGHTS, OPTIONS = "classifier.safetensors", "classifier.json"


@dataclass(frozen=True)
class HeadConfig:
    """The layers behind the backbone.

    Attributes:
        classes: names of the C classes, in the order of the outputs.
        head: ``"linear"``, or ``"mlp"``, two layers with ReLU.
        hidden: width of the first of two layers.
        dropout: share of the values before the last layer that are dropped in training.
    """

    classes: tuple[str, ...]
    head: str = "linear"
    hidden: int = 256
    dropout: float = 0.0

    def build(self, width: int) -> nn.Sequential:
        """Returns the layers for ``width`` features."""
        layers: list[nn.Module] = []
        if self.head == "mlp":
            layers += [nn.Linear(width, self.hidden), nn.ReLU()]
            width = self.hidden
        return nn.Sequential(*layers, nn.Dropout(self.dropout), nn.Linear(width, len(self.classes)))


class Classifier(nn.Module):
    """Tells the class of an image: ``head(encoder.features(x))``.

    Example::

        classifier = usucl.load_classifier("finetuned/final")
        classifier.predict("video.mp4").mean(0)  # probability of each of classifier.classes

    Attributes:
        encoder: the backbone, in an encoder whose own head is not used.
        head: the layers behind it.
        classes: names of the C classes, in the order of the outputs.
    """

    def __init__(self, encoder: FrameEncoder, config: HeadConfig) -> None:
        super().__init__()
        self.encoder, self.config = encoder, config
        self.classes = config.classes
        self.head = config.build(encoder.width)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits ``[B, C]`` of normalised images, as ``encoder.preprocess`` makes them."""
        logits: Tensor = self.head(self.encoder.features(images))
        return logits

    def predict(self, image: Picture, batch_size: int = 64) -> Tensor:
        """Returns the probability of each class, float64 ``[B, C]``, in eval mode.

        Args:
            image: an image, a path of an image or a video (B is its number of frames), or several,
                see :meth:`usucl.models.FrameEncoder.preprocess`. The mean over the frames is what
                fine-tuning measures for a video.
            batch_size: images encoded at once.

        Raises:
            TypeError, ValueError: see :meth:`usucl.models.FrameEncoder.preprocess`.
        """
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                images = self.encoder.preprocess(image)
                logits = [self(part) for part in images.split(batch_size)]
        finally:
            self.train(was_training)
        return torch.cat(logits).double().softmax(1).cpu()


def save_classifier(classifier: Classifier, folder: str | Path) -> None:
    """Writes the files of an encoder and of a head, each atomically, sealed.

    ``classifier.safetensors`` holds the weights of the head, ``classifier.json`` its layers and the
    classes; the others are those of :func:`usucl.models.save_encoder`.

    Raises:
        OSError: the folder cannot be written; an earlier version of a file stays.
    """
    folder = Path(folder)
    save_encoder(classifier.encoder, folder)
    write_tensors(folder / WEIGHTS, classifier.head.state_dict())
    write_json(folder / OPTIONS, asdict(classifier.config))


def load_classifier(folder: str | Path) -> Classifier:
    """Reads a fine-tuned classifier; it is in eval mode, on the CPU.

    Args:
        folder: ``final`` or ``folds/<number>`` of a fine-tuning, or its folder, which stands for
            ``final``.

    Raises:
        FileNotFoundError: ``folder`` holds none.
        ValueError: the files are damaged or do not fit each other.
    """
    folder = Path(folder)
    if not (folder / OPTIONS).is_file() and (folder / "final" / OPTIONS).is_file():
        folder = folder / "final"
    for name in (OPTIONS, WEIGHTS):
        if not (folder / name).is_file():
            folds = sorted(path.parent.name for path in folder.glob(f"folds/*/{OPTIONS}"))
            hint = f"; those of folds are in {folder / 'folds' / folds[0]} ..." if folds else ""
            raise FileNotFoundError(f"{folder} holds no classifier: {name} is missing{hint}")
    options = _options(folder / OPTIONS)
    tensors, _ = read_tensors(folder / WEIGHTS)
    classifier = Classifier(load_encoder(folder), options)
    try:
        classifier.head.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the classifier in {folder} cannot be loaded: {error}") from error
    return classifier.eval()


def _options(path: Path) -> HeadConfig:
    table: dict[str, Any] = read_json(path)
    known = {field.name for field in fields(HeadConfig)}
    classes = table.get("classes")
    if set(table) != known or not isinstance(classes, list) or len(classes) < 2:
        raise DamagedFileError(path, f"it must hold {', '.join(sorted(known))}")
    config = HeadConfig(**table)
    return replace(config, classes=tuple(map(str, classes)))
