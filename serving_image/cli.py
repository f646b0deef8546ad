"""``slipway-serve MODEL``: check the options, start the engine process, then serve it over HTTP.

The order is for a quick start: the engine process is spawned before the HTTP stack is imported, so that both cores
work while torch loads. Nothing on the way there imports more than the standard library and msgspec.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

from serving_image import chat_templates
from serving_image.errors import StartupError
from serving_image.options import EngineOptions, ServerOptions

#: Options of the public contract that this version does not serve: refused by name, never ignored.
UNSERVED_OPTIONS = (
    "--tensor-parallel-size",
    "--lora",
    "--speculative",
)
#: Values of served options that this version does not serve.
UNSERVED_VALUES = {
    "--quantization": ("gptq", "awq", "squeezellm", "fp8"),
    "--model-impl": ("transformers",),
}
ENGINE_MODULE = "serving_image.engine"


class Options(NamedTuple):
    """A whole command line, checked."""

    server: ServerOptions
    engine: EngineOptions


class _Parser(argparse.ArgumentParser):
    """Reports a mistake as a :class:`StartupError`, which is one line, instead of argparse's usage and two."""

    def error(self, message: str) -> NoReturn:
        raise StartupError(message[:1].upper() + message[1:] + ".", "`slipway-serve --help` lists the options.")


def main(argv: Sequence[str] | None = None, engine_module: str = ENGINE_MODULE) -> int:
    """Run ``slipway-serve``.

    :param argv: the command line without the program's name; None takes the process's own.
    :param engine_module: what ``python -m`` runs as the engine process.
    :returns: the exit status: 0 after a drain, 1 when the engine died, 2 when the model cannot be served as asked.
    """
    try:
        options = parse_options(sys.argv[1:] if argv is None else argv)
        return _serve(options, engine_module)
    except StartupError as error:
        sys.stderr.write("slipway-serve: error: " + " ".join(str(error).split()) + "\n")
        return 2
    except KeyboardInterrupt:
        return 130


def _serve(options: Options, engine_module: str) -> int:
    from serving_image.server.engine_process import EngineProcess  # noqa: PLC0415 - see the module's docstring
    from serving_image.server.listener import listen  # noqa: PLC0415
    from serving_image.server.model_folder import resolve_model  # noqa: PLC0415

    with _exit_on_sigterm(), listen(options.server.host, options.server.port) as listener:
        folder = resolve_model(options.server.model, options.server.revision, options.engine.load_format)
        engine_options = _in_folder(options.engine, folder)
        with EngineProcess.spawn(engine_module, engine_options, options.server.log_format) as engine:
            from serving_image.server.lifecycle import serve  # noqa: PLC0415

            return serve(options.server, engine, folder, listener)


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Until the event loop takes the signal over there is nothing to drain: leave, and clean up on the way."""
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _in_folder(options: EngineOptions, folder: Path) -> EngineOptions:
    from msgspec.structs import replace  # noqa: PLC0415

    return replace(options, model=str(folder))


def parse_options(argv: Sequence[str]) -> Options:
    """Check a command line.

    :raises StartupError: an option is unknown, not served yet, or has a value that cannot work.
    """
    for argument in argv:
        name = argument.partition("=")[0]
        if name in UNSERVED_OPTIONS:
            raise StartupError(f"{name} is not served by this version.", "Start without it.")
    arguments = _parser().parse_args(argv)
    for name, refused in UNSERVED_VALUES.items():
        value = getattr(arguments, name[2:].replace("-", "_"))
        if value in refused:
            raise StartupError(f"{name} {value} is not served by this version.", f"Use {name} auto, or leave it out.")
    engine = EngineOptions(
        model=arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        quantization=arguments.quantization,
        load_format=arguments.load_format,
        max_model_len=arguments.max_model_len,
        max_num_seqs=arguments.max_num_seqs,
        max_num_batched_tokens=arguments.max_num_batched_tokens,
        kv_cache_memory=arguments.kv_cache_memory,
        kv_cache_dtype=arguments.kv_cache_dtype,
        block_size=arguments.block_size,
        enable_prefix_caching=arguments.enable_prefix_caching,
        batch_invariant=arguments.batch_invariant,
        seed=arguments.seed,
        threads=arguments.threads,
        stall_timeout=arguments.stall_timeout,
    )
    server = ServerOptions(
        model=arguments.model,
        served_model_name=arguments.served_model_name or arguments.model,
        revision=arguments.revision,
        host=arguments.host,
        port=arguments.port,
        api_key_digests=_api_key_digests(arguments.api_key_file),
        chat_template=_chat_template(arguments.chat_template),
        boot_id=arguments.boot_id,
        log_format=arguments.log_format,
    )
    return Options(server, engine)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="slipway-serve", allow_abbrev=False, description="Serve a language model over OpenAI's HTTP API."
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a local folder or a Hugging Face model id")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=_integer(0, 65535), default=8000, help="port; 0 takes a free one (default: %(default)s)")
    add("--api-key-file", metavar="FILE", help="file with one accepted key per line; none: no key is asked for")
    add("--served-model-name", metavar="NAME", help="the model's name in the API (default: MODEL)")
    add("--revision", help="branch, tag or commit of a Hugging Face model")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    add("--quantization", choices=("auto", "none", "int8-dynamic", *UNSERVED_VALUES["--quantization"]), default="auto")
    add("--max-model-len", type=_auto_or(_integer(1)), metavar="auto|N", help="context in tokens (default: what fits)")
    add("--max-num-seqs", type=_integer(1), default=64, metavar="N", help="most sequences in one batch")
    add("--max-num-batched-tokens", type=_integer(1), default=2048, metavar="N", help="most tokens in one step")
    add("--kv-cache-memory", type=_integer(1), metavar="BYTES", help="memory for the KV cache (default: what fits)")
    add(
        "--kv-cache-dtype",
        choices=("auto", "fp8"),
        default="auto",
        help="of the KV cache; fp8 (e4m3) halves its memory, on GPUs that have it (default: the model's own)",
    )
    add("--block-size", type=_integer(1), metavar="N", help="tokens per block of the KV cache")
    add(
        "--enable-prefix-caching",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="share the KV cache of equal prompt beginnings (default: yes)",
    )
    add(
        "--batch-invariant",
        action="store_true",
        help="a request's tokens do not depend on what else is in the batch; slower",
    )
    add("--load-format", choices=("auto", "safetensors", "dummy"), default="auto")
    add("--model-impl", choices=("auto", "native", *UNSERVED_VALUES["--model-impl"]), default="auto")
    add(
        "--chat-template",
        metavar="FILE|NAME",
        help=f"Jinja template to use instead of the model's own: a file, or one of {', '.join(chat_templates.names())}",
    )
    add("--seed", type=_integer(0), default=0, help="seed of everything random that a request does not seed itself")
    add("--threads", type=_integer(1), metavar="N", help="CPU threads (default: one per core)")
    add(
        "--stall-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="give up when a step takes longer (default: 120 or more)",
    )
    add("--boot-id", type=_header_value, metavar="ID", help="repeated by /ready: tells this start from an earlier one")
    add("--log-format", choices=("text", "json"), default="text")
    return parser


def _integer(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        bounds = f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < lowest or (highest is not None and value > highest):
            raise argparse.ArgumentTypeError(f"{value} is out of range ({bounds})")
        return value

    return parse


def _header_value(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an id (letters, digits, '.', '_', '-'; at most 128)")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not (0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"{value:g} is out of range (more than 0)")
    return value


def _auto_or(parse: Callable[[str], int]) -> Callable[[str], int | None]:
    return lambda text: None if text == "auto" else parse(text)


def _text_of(path: str | None, option: str) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "not UTF-8 text"
        raise StartupError(f"{option} {path} cannot be read: {reason}.", "Name a readable text file.") from error


def _chat_template(named: str | None) -> str | None:
    """The text of a bundled template or of a file. A file with a bundled template's name is ``./NAME``."""
    if named in chat_templates.names():
        return chat_templates.read(named)
    if named is not None and not Path(named).exists() and os.sep not in named:
        message = f"--chat-template {named} is neither a file nor a bundled template."
        raise StartupError(message, f"The bundled ones are {', '.join(chat_templates.names())}.")
    return _text_of(named, "--chat-template")


def _api_key_digests(path: str | None) -> tuple[bytes, ...]:
    text = _text_of(path, "--api-key-file")
    if text is None:
        return ()
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if not keys:
        raise StartupError(f"--api-key-file {path} holds no key.", "Write one key per line, or leave the option out.")
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)


if __name__ == "__main__":
    sys.exit(main())
