"""Programs that reach an instance, ready to be copied and run."""

from __future__ import annotations

import json
import shlex
from typing import NamedTuple

_QUESTION = "Say hello in one sentence."
_ENVIRONMENT = "SLIPWAY_API_KEY"


class Snippet(NamedTuple):
    """``language`` as people call it."""

    language: str
    code: str


def snippets(api_url: str, model: str, key: str | None) -> list[Snippet]:
    """One chat request in each language.

    :param api_url: up to and including ``/v1``.
    :param key: put into the code as it is; None refers to the environment variable SLIPWAY_API_KEY instead.
    """
    return [
        Snippet("curl", _curl(api_url, model, key)),
        Snippet("Python", _python(api_url, model, key)),
        Snippet("JavaScript", _javascript(api_url, model, key)),
    ]


def _curl(api_url: str, model: str, key: str | None) -> str:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": _QUESTION}]}, ensure_ascii=False)
    bearer = shlex.quote(f"Authorization: Bearer {key}") if key else f'"Authorization: Bearer ${_ENVIRONMENT}"'
    return (
        f"curl {shlex.quote(api_url + '/chat/completions')} \\\n"
        f"  -H {bearer} \\\n"
        f"  -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )


def _python(api_url: str, model: str, key: str | None) -> str:
    key_line = f"    api_key={json.dumps(key)},\n" if key else f'    api_key=os.environ["{_ENVIRONMENT}"],\n'
    return (
        "# pip install openai\n"
        + ("" if key else "import os\n\n")
        + "from openai import OpenAI\n\n"
        + "client = OpenAI(\n"
        + f"    base_url={json.dumps(api_url)},\n"
        + key_line
        + ")\n"
        + "stream = client.chat.completions.create(\n"
        + f"    model={json.dumps(model)},\n"
        + f'    messages=[{{"role": "user", "content": {json.dumps(_QUESTION)}}}],\n'
        + "    stream=True,\n"
        + ")\n"
        + "for chunk in stream:\n"
        + "    if chunk.choices:\n"
        + '        print(chunk.choices[0].delta.content or "", end="", flush=True)\n'
        + "print()"
    )


def _javascript(api_url: str, model: str, key: str | None) -> str:
    value = json.dumps(key) if key else f"process.env.{_ENVIRONMENT}"
    return (
        "// npm install openai; save as hello.mjs; node hello.mjs\n"
        'import OpenAI from "openai";\n\n'
        "const client = new OpenAI({\n"
        f"  baseURL: {json.dumps(api_url)},\n"
        f"  apiKey: {value},\n"
        "});\n"
        "const stream = await client.chat.completions.create({\n"
        f"  model: {json.dumps(model)},\n"
        f'  messages: [{{ role: "user", content: {json.dumps(_QUESTION)} }}],\n'
        "  stream: true,\n"
        "});\n"
        "for await (const chunk of stream) {\n"
        '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");\n'
        "}"
    )
