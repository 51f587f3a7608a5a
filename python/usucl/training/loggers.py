"""Lightning's loggers of a run, which get the metrics besides the tables of its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image
from torch import Tensor

from usucl._files import DamagedFileError, read_json, write_json
from usucl.run_folder import RunFolder
from usucl.training.options import WatchingConfig

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
IDS = "ids.json"


def check_loggers(config: WatchingConfig) -> None:
    """Raises ValueError if the package of a logger is not installed."""
    for name in config.loggers:
        package = PACKAGES.get(name)
        if package is not None and find_spec(package) is None:
            raise ValueError(
                f"watching.logger {name!r} needs the package {package}, which is not installed: "
                f"pip install {package}, or choose another logger ('csv' needs none)"
            )


def make_loggers(
    run: RunFolder, config: WatchingConfig, run_id: str | None, *, done: int
) -> list[Logger]:
    """Returns the loggers of a run, in the order in which they are named.

    A run that is resumed goes on in the same run of Weights & Biases, which has its identity, and
    of MLflow, whose own identity of it is kept in the run folder.

    Args:
        run: the run folder.
        config: the options.
        run_id: identity of the run.
        done: number of steps after which it goes on; what TensorBoard has of later ones is hidden.
    """
    name = run.path.absolute().name
    made: list[Logger] = []
    for kind in config.loggers:
        if kind == "tensorboard":
            hidden: dict[str, Any] = {"purge_step": done + 1} if done else {}
            made.append(
                TensorBoardLogger(
                    run.path,
                    name=run.tensorboard.name,
                    version="",
                    default_hp_metric=False,
                    **hidden,
                )
            )
        elif kind == "wandb":
            run.loggers.mkdir(parents=True, exist_ok=True)
            made.append(
                WandbLogger(
                    name=name,
                    save_dir=run.loggers,
                    project=config.project,
                    id=run_id,
                    resume="allow",
                )
            )
        elif kind == "mlflow":
            run.loggers.mkdir(parents=True, exist_ok=True)
            made.append(_mlflow(run.loggers, name, config.project, resume=done > 0))
    return made


def _mlflow(folder: Path, name: str, project: str, *, resume: bool) -> Logger:
    folder = folder.absolute()
    # MLflow's own default, a folder of files, is no longer kept up by newer versions.
    server = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
    known = _ids(folder / IDS).get("mlflow") if resume else None
    logger = MLFlowLogger(
        experiment_name=project,
        run_name=name,
        tracking_uri=server,
        run_id=known,
        artifact_location=None
        if "MLFLOW_TRACKING_URI" in os.environ
        else (folder / "mlflow").as_uri(),
    )
    if known is None and (own := logger.run_id) is not None:
        write_json(folder / IDS, {"mlflow": own})
    return logger


def close_loggers(loggers: Sequence[Logger]) -> None:
    """Ends the run of Weights & Biases, which another run of this process would go on with."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


def _ids(path: Path) -> Mapping[str, Any]:
    try:
        return read_json(path)
    except (FileNotFoundError, DamagedFileError):  # it goes on as a run of its own
        return {}


def log_options(logger: Logger, options: Mapping[str, Any]) -> None:
    """Gives a logger the configuration of a run, as its hyperparameters."""
    logger.log_hyperparams(dict(options))


def log_histogram(loggers: Sequence[Logger], name: str, values: Tensor, step: int) -> None:
    """Gives a histogram to TensorBoard; the others get none."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_histogram(name, values, step)


def log_picture(loggers: Sequence[Logger], name: str, path: Path, step: int) -> None:
    """Gives a picture to each logger that takes pictures."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image(name, pixels, step, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image(key=name, images=[str(path)])
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(path), name)
