"""Downloads weights from the Hugging Face hub into its local cache, and uploads models."""

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


def upload(folder: Path, repo: str, *, private: bool, token: str | None = None) -> str:
    """Uploads the files of a folder to a model of the hub, which is created if missing.

    Args:
        repo: org/name.
        private: create it as private; an existing one must be private.
        token: token of the hub; None: that of the login.

    Returns:
        The address of the model.

    Raises:
        UserError: not logged in, no right to write there, or no network.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise UserError("push needs huggingface_hub: pip install huggingface_hub") from error
    if len(parts := repo.split("/")) != 2 or not all(parts):
        raise UserError(f"--repo {repo}: write org/name, the name of an account and of the model")
    api = HfApi(token=token)
    try:
        address = api.create_repo(repo, private=True if private else None, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise UserError(
                f"--private: {repo} exists and is public: make it private on the hub, or choose "
                "another --repo"
            )
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message="Upload a model of mae_jax",
            ignore_patterns=[".*", "**/.*"],
        )
    except HFValidationError as error:
        raise UserError(f"--repo {repo} is no name on the hub: {line_of(error)}") from error
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code == 401:
            raise UserError(
                f"{repo}: not logged in to the hub, or with a token that may not write: log in "
                "with `hf auth login`, or set HF_TOKEN and pass --token-from-env"
            ) from error
        if code in (403, 404):
            raise UserError(
                f"{repo}: there is no account {parts[0]!r}, or this login may not write there: "
                "use --repo with your user name or an organization that you belong to"
            ) from error
        raise UserError(f"{repo}: the hub refused the upload ({line_of(error)})") from error
    except UserError:
        raise
    except Exception as error:  # of many types, among them those of its HTTP client
        raise UserError(
            f"{repo} could not be uploaded ({line_of(error)}): check the network, and push again"
        ) from error
    return str(address)


def line_of(error: Exception) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
