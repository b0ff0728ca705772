"""Trained models on the hub of Hugging Face, by its mixin; imported only where the hub is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from counterpoise.trained.folder import CARD, CONFIG, WEIGHTS


class OnHub(ModelHubMixin):
    """What the mixin moves to and fro: a folder of ours.

    Args:
        model: a trained model to upload; None for a folder that was fetched.
        folder: where the fetched files are.
    """

    def __init__(self, model: Any = None, folder: Path | None = None):
        self.model, self.folder = model, folder

    def _save_pretrained(self, save_directory: Path) -> None:
        self.model.save_pretrained(save_directory, overwrite=True)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **model_kwargs: Any,
    ) -> OnHub:
        path = snapshot_download(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[CONFIG, WEIGHTS, CARD],
        )
        return cls(folder=Path(path))


def fetched(name: str, **options: Any) -> Path:
    """The folder of a model on the hub, fetched once.

    Args:
        name: as "owner/model".
        options: of ``ModelHubMixin.from_pretrained``.

    Raises:
        FileNotFoundError: there is no such model, or the hub cannot be reached; the message says which.
    """
    try:
        folder = OnHub.from_pretrained(name, **options).folder
    except (HfHubHTTPError, HFValidationError, OSError) as error:  # of a missing connection each library has its own
        response = getattr(error, "response", None)
        known = getattr(response, "status_code", None) in (401, 403, 404) or isinstance(error, HFValidationError)
        why = (
            "the hub has no model of that name that you may see"
            if known
            else "the hub cannot be reached, and no copy was fetched before. Without a network, give a folder that "
            "save_pretrained wrote"
        )
        said = " ".join(str(error).split())[:200]
        raise FileNotFoundError(f"There is no folder {name}, and {why} ({said}).") from error
    assert folder is not None
    return folder
