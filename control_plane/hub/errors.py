"""What can go wrong between a model id and its facts. Each says what to do next."""

from __future__ import annotations

from control_plane.errors import Forbidden, Invalid, NotFound, SlipwayError, Unavailable


class InvalidModelId(Invalid):
    """Not the id of a model repository."""

    code = "invalid_model_id"
    next_step = "Give it as on the hub: organisation/name, for example Qwen/Qwen3-0.6B."


class InvalidRevision(Invalid):
    """Not the name of a branch or tag, nor a commit SHA."""

    code = "invalid_revision"
    next_step = "Give a branch, a tag or a commit SHA; leave it out for the main branch."


class RepositoryNotFound(NotFound):
    """The hub knows no such model, or does not show it to this token."""

    code = "repository_not_found"
    next_step = "Check the spelling; if the model is private, set a token that may read it (HF_TOKEN)."


class RevisionNotFound(NotFound):
    """The repository exists, the branch, tag or commit does not."""

    code = "revision_not_found"
    next_step = "Leave the revision out for the main branch, or pick one of the repository's branches and tags."


class GatedRepository(Forbidden):
    """The authors hand out the files only to people who accepted their terms."""

    code = "gated_repository"
    next_step = "Accept the terms on the model's page, then set a token of that account (HF_TOKEN)."


class HubTokenRejected(Forbidden):
    """The hub does not accept the token at all."""

    code = "hub_token_rejected"
    next_step = "Set a valid token (HF_TOKEN), or none for public models."


class HubUnreachable(Unavailable):
    """The hub cannot be reached, fails, or falls silent."""

    code = "hub_unreachable"
    next_step = "Check the network and HF_ENDPOINT, then try again."


class HubRateLimited(Unavailable):
    """The hub asks for fewer requests; ``retry_after_s`` in ``extra`` where it says for how long."""

    code = "hub_rate_limited"
    next_step = "Wait, then try again; a token (HF_TOKEN) raises the limit."


class NotInCache(Unavailable):
    """Offline, and the model is not in the local cache."""

    code = "hub_offline"
    next_step = "Unset HF_HUB_OFFLINE, or launch a model that has been downloaded before."


class RedirectRefused(SlipwayError):
    """The hub sent the request to a host that is not its own."""

    status, code = 502, "hub_redirect_refused"
    next_step = "Check HF_ENDPOINT; use a hub that serves small files itself."


class NotAModel(Invalid):
    """The repository holds something that is not a language model in Hugging Face's format."""

    code = "not_a_model"
    next_step = "Pick a repository with a config.json and safetensors weights."


class InvalidRepository(Invalid):
    """A file of the repository is malformed, too large, or dangerous."""

    code = "invalid_repository"
    next_step = "Tell the model's authors, or pick another revision."
