"""Videos as random-access sequences of frames: folders and stacks of images, video files, DICOM.

Opening a video decodes all of it once. Containers may misstate their number of frames and images
may be cut short, so only decoding tells how many frames there are and that each is readable.

    opening, content    from a path to its class, by its suffix and its first bytes
    base                what every video offers
    images              still images as frames
    ffmpeg              video files, decoded by FFmpeg
    dicom               DICOM files, decoded by pydicom
    stored              files of plain pixels, which need no decoding
    limits              what a video may cost, checked before it is decoded
"""

from usucl.data.video.base import Damaged, Video, VideoError, natural_key
from usucl.data.video.images.image import (
    IMAGE_SUFFIXES,
    frame_files,
    is_image,
    is_stack,
    read_image,
)
from usucl.data.video.limits import check_cost
from usucl.data.video.opening import (
    VIDEO_SUFFIXES,
    is_video_file,
    open_video,
    restore_video,
    video_facts,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Damaged",
    "Video",
    "VideoError",
    "check_cost",
    "frame_files",
    "is_image",
    "is_stack",
    "is_video_file",
    "natural_key",
    "open_video",
    "read_image",
    "restore_video",
    "video_facts",
]
