"""Request bodies: OpenAI's fields, vLLM's extensions, and what each may hold.

A field is served, means nothing here (:class:`_IgnoredFields`), or is known but not served yet: then only its neutral
value passes (:data:`NEUTRAL_VALUES`). Any other field is refused, so that nothing a client asks for is lost silently.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from serving_image.server.errors import ApiError

#: OpenAI's default for completions; a chat answer may fill the context.
COMPLETION_MAX_TOKENS = 16
#: Most sequences that one prompt may ask for (`n`), as OpenAI has it; the server may admit fewer.
MAX_N = 128
MAX_STOP_STRINGS = 16
#: vLLM's bound; each word costs a look at the last tokens in every step.
MAX_BAD_WORDS = 1000
#: vLLM's bound for `logprobs`, `top_logprobs` and `prompt_logprobs`.
MAX_LOGPROBS = 20

Count = Annotated[int, Meta(ge=0)]
PositiveCount = Annotated[int, Meta(ge=1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
#: vLLM asks for more than 0; beyond these, scores overflow.
RepetitionPenalty = Annotated[float, Meta(ge=0.001, le=1000)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
NumLogprobs = Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)]
BadWord = Annotated[str, Meta(min_length=1, max_length=256)]
StopString = Annotated[str, Meta(min_length=1)]
TokenIds = Annotated[list[Count], Meta(min_length=1)]


class _IgnoredFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Accepted because clients send them; they change nothing about the output."""

    user: Any = None
    store: Any = None
    metadata: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None


class StreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class GenerationFields(_IgnoredFields, kw_only=True):
    """What completions and chat completions share. None means the default, as OpenAI's clients send it."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_N)] | None = 1
    max_tokens: Count | None = None
    min_tokens: Count | None = 0
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Int64 | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: RepetitionPenalty | None = None
    logit_bias: dict[Count, Bias] | None = None
    allowed_token_ids: TokenIds | None = None
    bad_words: Annotated[list[BadWord], Meta(max_length=MAX_BAD_WORDS)] | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=MAX_STOP_STRINGS)] | None = None
    stop_token_ids: list[Count] | None = None
    ignore_eos: bool | None = False
    skip_special_tokens: bool | None = True
    include_stop_str_in_output: bool | None = False
    prompt_logprobs: NumLogprobs | None = None
    priority: Int64 | None = 0
    cache_salt: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    structured_outputs: Any = None

    @property
    def stop_strings(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def sequences_per_prompt(self) -> int:
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def check_shared(self) -> None:
        """:raises ApiError: fields contradict each other, or one is not served yet (400)."""
        _refuse_unserved(self)
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options is only allowed with stream=true.", param="stream_options")
        if self.prompt_logprobs is not None and self.stream:
            message = "prompt_logprobs cannot be streamed; send the request without stream."
            raise ApiError(400, message, param="prompt_logprobs")


class CompletionRequest(GenerationFields, kw_only=True):
    """The body of ``POST /v1/completions``. Token lists are checked by :meth:`prompts`."""

    prompt: str | list[Any]
    echo: bool | None = False
    logprobs: NumLogprobs | None = None
    best_of: PositiveCount | None = None
    suffix: Any = None

    @property
    def answer_tokens(self) -> int | None:
        return COMPLETION_MAX_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """How many of the best tokens are wanted beside each generated one; None: no log-probabilities."""
        return self.logprobs

    @property
    def num_prompt_logprobs(self) -> int | None:
        """The same for the prompt's tokens, which are part of an echoed answer."""
        wanted = (self.prompt_logprobs, self.logprobs if self.echo else None)
        return max((count for count in wanted if count is not None), default=None)

    def check(self) -> None:
        """:raises ApiError: fields contradict each other (400)."""
        self.check_shared()
        if self.best_of not in (None, self.sequences_per_prompt):
            message = f"best_of {self.best_of} is not n: this server returns every sequence that it generates."
            raise ApiError(400, message, param="best_of", code="unsupported")
        if self.max_tokens == 0 and not self.echo:
            raise ApiError(400, "max_tokens 0 needs echo=true, which scores the prompt alone.", param="max_tokens")

    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts: texts, or lists of token ids.

        :raises ApiError: `prompt` is neither text, texts, token ids nor lists of token ids (400).
        """
        if isinstance(self.prompt, str):
            return [self.prompt]
        try:
            match self.prompt:
                case [str(), *_]:
                    return msgspec.convert(self.prompt, list[str])
                case [list(), *_]:
                    return msgspec.convert(self.prompt, list[TokenIds])
                case _:
                    return [msgspec.convert(self.prompt, TokenIds)]
        except msgspec.ValidationError as error:
            message = f"prompt: {error}. Send a string, strings, token ids, or lists of token ids; none may be empty."
            raise ApiError(400, message, param="prompt") from None


class TextPart(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class ChatMessage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One message. The fields after ``name`` are what clients echo from an answer; only empty ones are served."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Meta(max_length=0)] | None = None

    def for_template(self) -> dict[str, str]:
        """The message as chat templates expect it: text content, and OpenAI's newer `developer` as `system`."""
        role = "system" if self.role == "developer" else self.role
        if isinstance(self.content, list):
            content = "\n".join(part.text for part in self.content)
        else:
            content = self.content or ""
        return {"role": role, "content": content} | ({} if self.name is None else {"name": self.name})


class ChatCompletionRequest(GenerationFields, kw_only=True):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_tokens: PositiveCount | None = None
    max_completion_tokens: PositiveCount | None = None
    logprobs: bool | None = False
    top_logprobs: NumLogprobs | None = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None

    @property
    def answer_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def num_logprobs(self) -> int | None:
        """How many of the best tokens are wanted beside each generated one; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def num_prompt_logprobs(self) -> int | None:
        return self.prompt_logprobs

    def check(self) -> None:
        """:raises ApiError: fields contradict each other (400)."""
        self.check_shared()
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs=true.", param="top_logprobs")


GenerationRequest = CompletionRequest | ChatCompletionRequest


class TokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /tokenize``: a prompt, or messages for the chat template."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1)] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = True


class DetokenizeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /detokenize``."""

    model: str | None = None
    tokens: list[Count]


#: Field → the values that ask for nothing. Compared with their types: 0 is not False.
NEUTRAL_VALUES: dict[str, tuple[object, ...]] = {
    "structured_outputs": (),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}

Body = TypeVar("Body", CompletionRequest, ChatCompletionRequest, TokenizeRequest, DetokenizeRequest)


def parse_body(body: bytes, kind: type[Body]) -> Body:
    """Decode and check a request body.

    :raises ApiError: it is not JSON, or a field is missing, unknown, of the wrong type, out of range or not served;
        the error names the field (400).
    """
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _field_error(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.") from None
    if isinstance(request, GenerationRequest):
        request.check()
    return request


def _refuse_unserved(request: GenerationFields) -> None:
    for name in request.__struct_fields__:
        value = getattr(request, name)
        neutral = NEUTRAL_VALUES.get(name)
        if neutral is None or value is None or any(type(value) is type(n) and value == n for n in neutral):
            continue
        raise ApiError(
            400, f"{name} is not supported by this server; send the request without it.", param=name, code="unsupported"
        )


def _field_error(message: str) -> ApiError:
    """msgspec says what is wrong and where (``… - at `$.messages[0].role```); name the field as OpenAI does."""
    text, _, path = message.partition(" - at ")
    if path.startswith("`key` in "):
        text = f"a key: {text}"
    path = path.rpartition("$")[2].rstrip("`").removeprefix(".").replace("[...]", "")
    named = re.search(r"field `([^`]+)`", text)
    if named:
        path = f"{path}.{named[1]}" if path else named[1]
    code = "unsupported" if "unknown field" in text else None
    return ApiError(400, f"{path}: {text}." if path else f"{text}.", param=path or None, code=code)
