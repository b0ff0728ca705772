"""ResNet-18 from scratch, as most papers of this field use it."""

from __future__ import annotations

from torch import Tensor, nn

from counterpoise._checks import number
from counterpoise.encoders._frames import over_frames
from counterpoise.encoders._norm import BatchNorm2d


class ResNet18(nn.Module):
    """ResNet-18 (He et al., CVPR 2016), randomly initialised: (batch, channels, H, W) -> (batch, 512).

    (batch, H, W) is one channel. Frames (batch, channels, T, H, W) are folded into the batch and
    their features averaged over time as over space. Convolutions start from Kaiming's normal
    (fan out), batch-normalisation weights from N(1, 0.02).

    Args:
        channels: channels of the input: 3 for images, 1 for spectrograms.
    """

    dim = 512

    def __init__(self, channels: int = 3):
        super().__init__()
        from torchvision.models.resnet import BasicBlock, ResNet  # slow to import

        self.channels = int(number("channels", channels, low=1))
        net = ResNet(BasicBlock, [2, 2, 2, 2], norm_layer=BatchNorm2d)
        net.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        if channels != 3:
            net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return over_frames(self.net, x)
