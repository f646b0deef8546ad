"""What every route of one server shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving_image.engine.protocol import EngineReady
from serving_image.options import ServerOptions
from serving_image.server.chat_template import ChatTemplate
from serving_image.server.engine_client import EngineClient
from serving_image.server.errors import ApiError
from serving_image.server.metrics import Metrics
from serving_image.server.model_folder import GenerationDefaults
from serving_image.server.sampling import ModelLimits
from serving_image.server.tokenizer import Tokenizer

#: Sequences admitted per running slot: the queue is then at most 15 batches deep, and a client that comes later is
#: better off retrying elsewhere.
ADMITTED_PER_SLOT = 16
#: Most seconds without a word; the engine speaks twice a second, within a step as well.
MAX_HEARTBEAT_AGE = 10.0
#: What a refused client is told, in seconds, however slow or quick the server is.
SHORTEST_RETRY, LONGEST_RETRY = 1, 60


@dataclass
class ServerState:
    """The served model and the engine behind it.

    :ivar clock: monotonic seconds; ``now`` is Unix seconds; ``new_id`` gives unique words.
    :ivar draining: no new request is taken; those running are finished.
    """

    options: ServerOptions
    engine: EngineClient
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    defaults: GenerationDefaults
    metrics: Metrics
    clock: Callable[[], float]
    now: Callable[[], float]
    new_id: Callable[[], str]
    started_at: int
    draining: bool = False

    @property
    def unhealthy_because(self) -> str | None:
        """What is wrong with the engine; None while it loads or gets on.

        Half the time after which a stalled engine is ended is enough to say so here: traffic should go elsewhere.
        """
        if self.engine.failed is not None:
            return "failed"
        if self.engine.ready is None:
            return None
        patience = self.engine.ready.stall_timeout / 2
        if self.engine.heartbeat_age > min(MAX_HEARTBEAT_AGE, patience):
            return "silent"
        return "stalled" if self.engine.seconds_without_progress > patience else None

    @property
    def unavailable_because(self) -> str | None:
        """Why no request can be answered now; None when one can."""
        if self.unhealthy_because is not None:
            return self.unhealthy_because
        if self.draining:
            return "draining"
        return "loading" if self.engine.ready is None else None

    @property
    def engine_ready(self) -> EngineReady:
        """:raises ApiError: the engine is loading, stuck or gone, or the server drains (503)."""
        because = self.unavailable_because
        ready = self.engine.ready
        if because is not None or ready is None:
            raise ApiError(503, f"The server is {because}.", code=because, headers={"Retry-After": "1"})
        return ready

    @property
    def limits(self) -> ModelLimits:
        """:raises ApiError: the engine is loading, stuck or gone, or the server drains (503)."""
        return ModelLimits.of(self.engine_ready, self.defaults)

    @property
    def max_live_sequences(self) -> int:
        return ADMITTED_PER_SLOT * self.engine_ready.max_num_seqs

    def admit(self, num_sequences: int) -> None:
        """Check that so many more sequences may wait or run.

        :raises ApiError: they never fit (400), or not now (429).
        """
        most = self.max_live_sequences
        if num_sequences > most:
            message = f"This request asks for {num_sequences} sequences; this server takes at most {most} at once."
            raise ApiError(400, message, param="n")
        if self.engine.num_live + num_sequences > most:
            message = (
                f"The server is full: {self.engine.num_live} sequences are running or waiting. "
                f"Try again in {self.retry_after} s."
            )
            raise ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": str(self.retry_after)})

    @property
    def retry_after(self) -> int:
        """Seconds until those who wait now have probably been served, for a client that finds the server full."""
        waiting = max(self.engine.num_live - self.engine_ready.max_num_seqs, 1)
        return round(min(max(self.engine.seconds_until_ended(waiting), SHORTEST_RETRY), LONGEST_RETRY))

    def check_model(self, model: str | None) -> None:
        """:raises ApiError: a request names another model (404)."""
        served = self.options.served_model_name
        if model not in (None, served):
            message = f"The model {model} does not exist here; this server has {served}."
            raise ApiError(404, message, param="model", code="model_not_found")
