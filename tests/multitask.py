"""Multi-task training: what several methods are with their own terms switched off."""

from __future__ import annotations

from counterpoise.method import Method


class MultiTask(Method):
    def loss(self, output, step):
        return super().loss(output, step) + sum(step.unimodal_loss(output, m) for m in output.unimodal)
