"""Networks of torchvision and timm by their names, without their classifiers."""

from usucl.models.backbones.networks import (
    Library,
    Network,
    check_backbone,
    library_of,
    make_in,
    make_network,
    network_lines,
)

__all__ = [
    "Library",
    "Network",
    "check_backbone",
    "library_of",
    "make_in",
    "make_network",
    "network_lines",
]
