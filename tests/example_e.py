"""Three samples of three classes by three modalities: logits on which rules of several methods are worked out."""

from __future__ import annotations

import torch

UA = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0.5, 0, 1.5]], dtype=torch.float64)
UV = torch.tensor([[0.0, 1, 0], [0, 2, 1], [1, 0, 0]], dtype=torch.float64)
UT = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 2]], dtype=torch.float64)
Y = torch.tensor([0, 1, 2])
