"""Downloads weights from the Hugging Face hub into its local cache."""

from pathlib import Path

from mae_jax.types import UserError


def from_hub(source: str) -> Path:
    """Downloads the model hf://org/name[@revision] from the Hugging Face hub, unless it is in the
    local cache. Returns its folder there.

    Raises:
        UserError: there is no such model, or no network and nothing in the cache.
    """
    name, _, revision = source.removeprefix("hf://").partition("@")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
    except ImportError as error:
        raise UserError(f"{source} needs huggingface_hub: pip install huggingface_hub") from error

    def fetched(patterns: list[str]) -> Path:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))

    try:
        folder = fetched(["*.json", "*.safetensors"])
        if not any(folder.glob("*.safetensors")):
            folder = fetched(["*.json", "*.bin"])
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{source} is not in the local cache and the hub cannot be reached: go online once, "
            f"or copy its folder to this machine and pass its path"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"the hub has no model {name!r}, or requires a login for it") from error
    except HFValidationError as error:
        raise UserError(f"{source} is no name on the hub: write hf://org/name") from error
    except Exception as error:  # of many types, among them those of its HTTP client
        raise UserError(f"{source} could not be downloaded ({line_of(error)})") from error
    return folder


def line_of(error: Exception) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
