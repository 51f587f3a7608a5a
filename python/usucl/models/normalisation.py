"""What stands in place of batch normalisation in an encoder."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

MOST_GROUPS = 32


def groups_of(channels: int) -> int:
    """Returns the number of groups for a layer: at most 32, each of at least two channels.

    32 groups are the default of Wu and He (ECCV 2018), and best in their comparison. One channel
    per group would take its mean out of every channel, and leave zeros of a single pixel.
    """
    fitting = [g for g in range(1, MOST_GROUPS + 1) if channels % g == 0 and g < channels]
    return fitting[-1] if fitting else 1


class GroupNormAct(nn.GroupNorm):
    """Group normalisation with what timm has in the same layer after it: dropout and activation."""

    def __init__(self, layer: _BatchNorm) -> None:
        channels = layer.num_features
        super().__init__(groups_of(channels), channels, layer.eps, layer.affine)
        self.drop, self.act = layer.get_submodule("drop"), layer.get_submodule("act")

    def forward(self, images: Tensor) -> Tensor:
        """Normalises, drops and activates ``[B, C, H, W]``."""
        activated: Tensor = self.act(self.drop(super().forward(images)))
        return activated


def use_groups(module: nn.Module) -> None:
    """Replaces every batch normalisation inside a module by one of groups of channels.

    Weights and biases are kept. A vector, which has no pixels, is one group.
    """
    for name, layer in list(module.named_modules()):
        if isinstance(layer, _BatchNorm):
            made: nn.GroupNorm
            if has_activation(layer):
                made = GroupNormAct(layer)
            else:
                groups = groups_of(layer.num_features) if isinstance(layer, nn.BatchNorm2d) else 1
                made = nn.GroupNorm(groups, layer.num_features, layer.eps, layer.affine)
            made = made.to(next(layer.buffers()).device)
            if layer.affine:
                made.weight, made.bias = layer.weight, layer.bias
            module.set_submodule(name, made)


def has_activation(layer: nn.Module) -> bool:
    """Returns whether a layer of timm holds an activation besides the normalisation."""
    return hasattr(layer, "act") and hasattr(layer, "drop")


def freeze_statistics(module: nn.Module) -> None:
    """Lets batch normalisation use its running statistics, and keep them, also in training."""
    for layer in module.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()


def synchronise(module: nn.Module) -> None:
    """Replaces batch normalisation inside a module by one over the batches of all processes.

    Names and values of the weights stay, so files are those of plain batch normalisation. Call it
    before the module is wrapped for several processes; PyTorch has it on GPUs only.
    """
    for name, layer in list(module.named_modules()):
        if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm):
            if has_activation(layer):  # which PyTorch's own conversion would lose
                from timm.layers import convert_sync_batchnorm as convert
            else:
                convert = nn.SyncBatchNorm.convert_sync_batchnorm
            module.set_submodule(name, convert(layer))
