"""Options of how the same arithmetic is done faster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ComputingConfig:
    """How the encoders are computed: faster or slower, with the same results but for rounding.

    A run may be resumed with others. How much each helps depends on the machine: compare
    ``images_per_second`` in ``metrics.csv``.

    Attributes:
        compile: whether ``torch.compile`` turns the encoders into code for this machine in their
            first steps, which takes a minute or more and needs a C++ compiler (on a GPU also
            Triton). Worthwhile for long runs on a GPU.
        channels_last: whether the encoders keep the channels of a pixel together in memory, which
            convolutions are fastest with on CPUs and on GPUs with tensor cores.
        cudnn_benchmark: whether cuDNN tries several algorithms for every size of batch, and keeps
            the fastest; sums may then differ from run to run in their last bits.
        matmul_precision: precision of float32 matrix products in the encoders, ``"highest"``
            (float32), ``"high"`` (TF32 on a GPU, about three decimal digits) or ``"medium"``
            (bfloat16 where that is faster); see ``torch.set_float32_matmul_precision``.
    """

    compile: bool = False
    channels_last: bool = True
    cudnn_benchmark: bool = False
    matmul_precision: Literal["highest", "high", "medium"] = "highest"
