"""The copy of one video, written in one piece: a folder of images, or a stored video."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from usucl._files import DamagedFileError, remove_left_over, temporary_of
from usucl.data.catalog.entry import VideoEntry
from usucl.data.store.frames import resized_size
from usucl.data.video import Video, VideoError
from usucl.data.video.images.times import TIMES, write_times
from usucl.data.video.stored import SUFFIX, stored_pixels, write_stored

ImageFormat = Literal["png", "jpeg"]
Frames = Callable[[], Iterable[Tensor]]


class Writer(ABC):
    """Writes copies of videos of one kind, with the same options for all."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    @abstractmethod
    def file(self, place: Path) -> Path:
        """Returns the path of the copy that is called ``place``."""

    @abstractmethod
    def is_finished(self, path: Path, entry: VideoEntry) -> bool:
        """Returns whether the copy is there.

        Raises:
            FileExistsError: something else is there.
        """

    @abstractmethod
    def write(self, path: Path, video: Video, frames: Frames) -> None:
        """Writes a copy.

        Raises:
            OSError: it cannot be written; nothing is left of it.
            VideoError: the video cannot be read any more.
        """


class FolderWriter(Writer):
    """Writes folders of images, with the times of the frames beside them."""

    def __init__(self, options: Mapping[str, Any], image_format: ImageFormat) -> None:
        super().__init__(options)
        self.format = image_format

    def file(self, place: Path) -> Path:
        """Returns ``place`` itself."""
        return place

    def is_finished(self, path: Path, entry: VideoEntry) -> bool:
        """Returns whether the folder holds as many images as the video has frames."""
        if not path.exists():
            return False
        if not path.is_dir():
            raise FileExistsError(f"{path} already exists and is a file: choose another out")
        inside = [file for file in path.iterdir() if file.is_file()]
        images = [file for file in inside if file.suffix == f".{self.format}"]
        if not inside:
            return False
        others = [file for file in inside if file not in images and file.name != TIMES]
        if len(images) != entry.num_frames or others:
            raise FileExistsError(
                f"{path} already exists and holds other frames: choose another out"
            )
        if self.options["crop"] == "none":
            self._check_size(min(images), entry)
        return True

    def _check_size(self, image: Path, entry: VideoEntry) -> None:
        from PIL import Image

        video, size = entry.open(), self.options["size"]
        height, width = (video.height, video.width) if size is None else resized_size(video, size)
        with Image.open(image) as opened:
            if opened.size != (width, height):
                raise FileExistsError(
                    f"{image.parent} already exists with frames of another size: choose another out"
                )

    def write(self, path: Path, video: Video, frames: Frames) -> None:
        """Writes the images to a hidden folder, which is renamed in the end."""
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_left_over(path.parent, path)
        unfinished = temporary_of(path, "unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            written = [self._image(unfinished, n, frame) for n, frame in enumerate(frames())]
            if len(written) != len(video):
                raise VideoError(
                    video.path, f"holds {len(written)} frames, not {len(video)}: it was changed"
                )
            if video.times is not None:
                write_times(unfinished, written, video.times)
            with suppress(OSError):
                path.rmdir()  # empty, or the new one cannot take its place
            unfinished.rename(path)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _image(self, folder: Path, number: int, frame: Tensor) -> str:
        from PIL import Image

        grey = bool((frame[0] == frame[1]).all() and (frame[0] == frame[2]).all())
        pixels = frame[0] if grey else frame.permute(1, 2, 0)
        image = Image.fromarray(pixels.contiguous().numpy())
        name = f"{number:05d}.{self.format}"
        if self.format == "jpeg":
            image.save(folder / name, quality=95)
        else:
            image.save(folder / name, compress_level=4)
        return name


class StoreWriter(Writer):
    """Writes stored videos."""

    def file(self, place: Path) -> Path:
        """Returns ``place`` with the suffix of stored videos."""
        return place.with_name(place.name + SUFFIX)

    def is_finished(self, path: Path, entry: VideoEntry) -> bool:
        """Returns whether the file holds the video, with the same options."""
        if not path.exists():
            return False
        try:
            pixels, notes = stored_pixels(path, check=False)
        except (DamagedFileError, VideoError, OSError) as error:
            raise FileExistsError(
                f"{path} already exists and is no whole stored video: choose another out"
            ) from error
        if notes.get("options") != dict(self.options) or pixels.shape[0] != entry.num_frames:
            raise FileExistsError(
                f"{path} already exists and holds other frames: choose another out"
            )
        return True

    def write(self, path: Path, video: Video, frames: Frames) -> None:
        """Writes a hidden file, which is renamed in the end."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_stored(path, frames, video, notes={"options": dict(self.options)})


def interruptible(
    video: Video, cut: Callable[[Tensor], Tensor], note: Callable[[], None]
) -> Iterator[Tensor]:
    """Yields all frames of a video, cut; ``note`` is called after each, and may raise."""
    for frame in video.iter_frames(range(len(video))):
        yield cut(frame)
        note()
