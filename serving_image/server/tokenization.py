"""``POST /tokenize`` and ``POST /detokenize``, in vLLM's shapes."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from serving_image.server.chat import tokenize_chat
from serving_image.server.connection import read_body
from serving_image.server.errors import ApiError
from serving_image.server.requests import DetokenizeRequest, TokenizeRequest, parse_body
from serving_image.server.responses import Detokenized, Tokenized
from serving_image.server.state import ServerState


async def tokenize(http: Request) -> Response:
    state: ServerState = http.app.state.server
    request = parse_body(await read_body(http), TokenizeRequest)
    state.check_model(request.model)
    if (request.prompt is None) == (request.messages is None):
        raise ApiError(400, "Send either prompt or messages.", param="prompt")
    if request.messages is not None:
        if request.add_special_tokens:
            message = "add_special_tokens applies to prompt only: a chat template writes its own special tokens."
            raise ApiError(400, message, param="add_special_tokens")
        tokens = await tokenize_chat(state, request.messages, add_generation_prompt=request.add_generation_prompt)
    else:
        tokens = await state.tokenizer.encode(
            request.prompt or "", add_special_tokens=request.add_special_tokens is not False
        )
    body = Tokenized(len(tokens), state.limits.max_model_len, tokens)
    return Response(msgspec.json.encode(body), media_type="application/json")


async def detokenize(http: Request) -> Response:
    state: ServerState = http.app.state.server
    request = parse_body(await read_body(http), DetokenizeRequest)
    state.check_model(request.model)
    vocab_size = state.limits.vocab_size
    if request.tokens and max(request.tokens) >= vocab_size:
        message = f"tokens holds {max(request.tokens)}; the vocabulary ends at {vocab_size - 1}."
        raise ApiError(400, message, param="tokens")
    text = state.tokenizer.decode(request.tokens, skip_special_tokens=False)
    return Response(msgspec.json.encode(Detokenized(text)), media_type="application/json")
