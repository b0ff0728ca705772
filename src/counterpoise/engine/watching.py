"""What watches a run, and what a checkpoint holds of it."""

from __future__ import annotations

from typing import Any

from counterpoise.observer import Observer


class Observers(list[Observer]):
    """The observers of a run, in order. Those that keep something go by the names of their classes."""

    def __init__(self, observers: list[Observer] | None = None):
        super().__init__(observers or [])
        self.saved: dict[str, Any] = {}

    def keeping(self) -> dict[str, Observer]:
        """Name -> observer that keeps something; the second of a class has a 2."""
        named: dict[str, Observer] = {}
        for observer in self:
            if observer.state_dict():
                name = type(observer).__name__
                same = sum(type(other) is type(observer) for other in named.values())
                named[f"{name} {same + 1}" if same else name] = observer
        return named

    def state_dict(self) -> dict[str, Any]:
        """What each of them has seen."""
        return {name: observer.state_dict() for name, observer in self.keeping().items()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Note what they have seen; they get it by ``resume``, once they have started."""
        self.saved = saved

    def resume(self) -> None:
        """Give each of them what was noted."""
        if self.saved:
            for name, observer in self.keeping().items():
                observer.load_state_dict(self.saved[name])
