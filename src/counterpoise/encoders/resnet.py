"""ResNet-18 from scratch, as most papers of this field use it, and ResNet-50 from ImageNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from counterpoise._checks import choice, whole
from counterpoise._extras import require
from counterpoise.encoders._frames import over_frames
from counterpoise.encoders._norm import BatchNorm2d
from counterpoise.encoders._weights import adopt, torchvision_state


class _ResNet(nn.Module):
    """What both have in common."""

    name: str
    blocks = ("layer1", "layer2", "layer3", "layer4")

    def __init__(self, channels: int, weights: str | None, *, logits: bool):
        super().__init__()
        require(f"The encoder {type(self).__name__}", "torchvision")
        from torchvision import models  # slow to import

        self.channels, self.weights = whole("channels", channels, low=1), weights
        net = getattr(models, self.name)(norm_layer=BatchNorm2d)
        self.dim = net.fc.out_features if logits else net.fc.in_features
        if not logits:
            net.fc = nn.Identity()
        if channels != 3:
            net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
        if weights is not None:
            adopt(
                net,
                torchvision_state(self.name, weights),
                weights,
                first="conv1.weight",
                leave=() if logits else ("fc.",),
            )
        self.net = net.to(memory_format=torch.channels_last)  # faster on CPUs and GPUs, the same numbers

    def forward(self, x: Tensor) -> Tensor:
        return over_frames(self.net, x)


class ResNet18(_ResNet):
    """ResNet-18 (He et al., CVPR 2016): (batch, channels, H, W) -> (batch, 512).

    (batch, H, W) is one channel. Frames (batch, channels, T, H, W) are folded into the batch and
    their features averaged over time as over space. At random, convolutions start from Kaiming's
    normal (fan out), batch-normalisation weights from N(1, 0.02).

    Args:
        channels: channels of the input: 3 for images, 1 for spectrograms. The first convolution of
            ``weights`` is averaged over its channels where the number differs.
        weights: path of a state dict in torchvision's layout, or the name of weights that torchvision
            downloads (``"IMAGENET1K_V1"``); None starts at random.

    Raises:
        FileNotFoundError: ``weights`` is neither a file nor a name.
        RuntimeError: the download failed.
        ValueError: the file holds other weights; ``channels`` out of range.
    """

    name = "resnet18"

    def __init__(self, channels: int = 3, *, weights: str | None = None):
        super().__init__(channels, weights, logits=False)


class ResNet50(_ResNet):
    """ResNet-50 (He et al., CVPR 2016): (batch, channels, H, W) -> (batch, 2048), or its 1000 logits.

    Input and random start are those of ``ResNet18``.

    Args:
        channels: channels of the input. The first convolution of ``weights`` is averaged over its
            channels where the number differs.
        weights: path of a state dict in torchvision's layout (the released code of IGM starts from
            ``resnet50-0676ba61.pth``), or the name of weights that torchvision downloads
            (``"IMAGENET1K_V1"``, which is that file, or ``"IMAGENET1K_V2"``); None starts at random.
        output: ``"features"``, the 2048 pooled ones, or ``"logits"``, the 1000 of ImageNet, which the
            released code of IGM takes for features.

    Raises:
        FileNotFoundError: ``weights`` is neither a file nor a name.
        RuntimeError: the download failed.
        ValueError: the file holds other weights; arguments out of range.
    """

    name = "resnet50"

    def __init__(self, channels: int = 3, *, weights: str | None = None, output: str = "features"):
        chosen = choice("output", output, ("features", "logits"))
        super().__init__(channels, weights, logits=chosen == "logits")
        self.output = chosen
