#!/usr/bin/env python3
"""Train the starter model from ``starter/corpus.txt`` and write it to ``starter/model/``.

    .venv/bin/python scripts/train_starter.py [--out FOLDER]

The same text and torch version give the same weights. It takes about four minutes on one core; it uses only one, since
two threads wait for each other at every operation when anything else wants a core.
The model is a Llama in miniature: the layout of its checkpoint is Hugging Face's LlamaForCausalLM.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "starter" / "corpus.txt"
MAX_BYTES = 8 * 10**6
SEED = 7
STEPS, ROWS, ROW_TOKENS, PEAK_RATE = 480, 8, 256, 3e-3
VOCABULARY = 1024
BEGIN, END, SYSTEM, USER, ASSISTANT = "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass
class Corpus:
    """The parsed text. ``answers`` pairs the ways to ask a question with its answer."""

    systems: list[str] = field(default_factory=list)
    answers: list[tuple[list[str], str]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)
    passages: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Corpus:
        corpus, question = cls(), ""
        for line in path.read_text(encoding="utf-8").splitlines():
            kind, text = line[:3], line[3:].strip()
            match kind:
                case "Q: ":
                    question = text
                case "A: ":
                    corpus.answers.append(([way.strip() for way in question.split(" | ")], text))
                case "S: ":
                    corpus.systems.append(text)
                case "U: ":
                    corpus.unknown.append(text)
                case "F: ":
                    corpus.fallbacks.append(text)
                case "P: ":
                    corpus.passages.append(text)
                case _ if line.strip() and not line.startswith("#"):
                    raise SystemExit(f"{path}: cannot read the line {line!r}")
        return corpus

    @property
    def texts(self) -> list[str]:
        """Everything the model may say or hear, for the tokenizer."""
        asked = [way for ways, _ in self.answers for way in ways] + self.unknown
        said = [answer for _, answer in self.answers] + self.fallbacks + self.passages + self.systems
        return said + asked + [_capitalised(way) for way in asked] + [way.lower() for way in asked]


@dataclass(frozen=True)
class Shape:
    """The model's dimensions, named as in config.json."""

    vocab_size: int
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 3
    num_key_value_heads: int = 1
    head_dim: int = 64
    max_position_embeddings: int = 1024
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        query, key = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, key, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, key, bias=False)
        self.o_proj = nn.Linear(query, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        rows, length, _ = x.shape
        q, k, v = (
            projection(x).view(rows, length, -1, self.shape.head_dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, -1))


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = FeedForward(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Parameter names are those of LlamaForCausalLM below ``model.``; the output shares the embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[rows, length, vocab]`` for tokens ``[rows, length]``."""
        x = self.embed_tokens(tokens)
        steps = torch.arange(0, self.shape.head_dim, 2) / self.shape.head_dim
        angles = torch.outer(torch.arange(tokens.shape[1]), self.shape.rope_theta**-steps).repeat(1, 2)
        cos, sin = angles.cos(), angles.sin()
        for layer in self.layers:
            x = layer(x, cos, sin)
        return functional.linear(self.norm(x), self.embed_tokens.weight)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def train_tokenizer(corpus: Corpus) -> Tokenizer:
    """A byte-level BPE tokenizer: any text has tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END, SYSTEM, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus.texts, trainer)
    return tokenizer


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


class Examples:
    """Rows of training tokens: conversations and passages, one after another, asked in many spellings."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, seed: int) -> None:
        self._corpus, self._tokenizer, self._random = corpus, tokenizer, random.Random(seed)  # noqa: S311
        self._deck: list[tuple[list[str], str]] = []

    def row(self, length: int) -> tuple[list[int], list[bool]]:
        """Token ids and, for each, whether the model is to learn to write it."""
        ids: list[int] = []
        learnt: list[bool] = []
        while len(ids) <= length:
            for text, learn in self._document():
                part = self._tokenizer.encode(text, add_special_tokens=False).ids
                ids += part
                learnt += [learn] * len(part)
        return ids[: length + 1], learnt[: length + 1]

    def _document(self) -> list[tuple[str, bool]]:
        pick = self._random
        if pick.random() < 0.1:
            return [(BEGIN, False), (pick.choice(self._corpus.passages) + END, True)]
        parts = [(BEGIN, False)]
        if pick.random() < 0.25:
            parts.append((SYSTEM + pick.choice(self._corpus.systems) + END, False))
        for _ in range(pick.choice((1, 1, 1, 2, 3))):
            question, answer = self._turn()
            parts += [(USER + question + END + ASSISTANT, False), (answer + END, True)]
        return parts

    def _turn(self) -> tuple[str, str]:
        pick = self._random
        if pick.random() < 0.12:
            question, answer = pick.choice(self._corpus.unknown), pick.choice(self._corpus.fallbacks)
            if pick.random() < 0.5:  # any words in any order: what is not in the corpus gets the same answer
                words = " ".join(pick.sample(self._corpus.unknown, 3)).split()
                question = " ".join(pick.sample(words, pick.randint(1, 7)))
        else:
            if not self._deck:  # every answer once before any comes again
                self._deck = pick.sample(self._corpus.answers, len(self._corpus.answers))
            ways, answer = self._deck.pop()
            question = pick.choice(ways)
        if pick.random() < 0.1:
            question = pick.choice(("please ", "so, ", "can you tell me: ", "hey, ", "I wonder, ")) + question
        question = question.lower() if pick.random() < 0.35 else _capitalised(question)
        return question + pick.choice(("", "", "?", "?", ".", "!")), answer


def train(corpus: Corpus, tokenizer: Tokenizer) -> Llama:
    """Fit a model; prints the loss of the tokens it is to write."""
    torch.manual_seed(SEED)
    model = Llama(Shape(vocab_size=tokenizer.get_vocab_size()))
    examples = Examples(corpus, tokenizer, SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.95), weight_decay=0.05)
    started = time.monotonic()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step)
        rows = [examples.row(ROW_TOKENS) for _ in range(ROWS)]
        tokens, learnt = torch.tensor([ids for ids, _ in rows]), torch.tensor([mask for _, mask in rows])
        targets = tokens[:, 1:].masked_fill(~learnt[:, 1:], -100)
        loss = functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step:4d}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)
    return model


def _rate(step: int) -> float:
    warm = 40
    if step < warm:
        return PEAK_RATE * (step + 1) / warm
    return PEAK_RATE * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / (STEPS - warm))))


@torch.no_grad()
def reply(model: Llama, tokenizer: Tokenizer, question: str, limit: int = 100) -> str:
    """The greedy answer to one question."""
    ids = tokenizer.encode(BEGIN + USER + question + END + ASSISTANT, add_special_tokens=False).ids
    start = len(ids)
    while len(ids) < start + limit and ids[-1] != tokenizer.token_to_id(END):
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return tokenizer.decode(ids[start:])


def save(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the folder in Hugging Face's format, weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"model.{name}": value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    begin, end = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **asdict(model.shape),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": begin,
        "eos_token_id": end,
        "dtype": "bfloat16",
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "model_max_length": model.shape.max_position_embeddings,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    generation = {"bos_token_id": begin, "eos_token_id": end, "do_sample": True, "temperature": 0.5, "top_p": 0.95}
    for name, content in (
        ("config.json", config),
        ("tokenizer_config.json", tokenizer_config),
        ("generation_config.json", generation),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def check(model: Llama, tokenizer: Tokenizer, corpus: Corpus, folder: Path) -> None:
    """Refuse a model that is too large or does not answer in words of its corpus."""
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {size:,} bytes in {folder}")
    if size > MAX_BYTES:
        raise SystemExit(f"The model takes {size} bytes; {MAX_BYTES} are allowed.")
    known = set(re.findall(r"\w+", " ".join(corpus.texts).lower()))
    exact = 0
    for ways, answer in corpus.answers:
        said = reply(model, tokenizer, _capitalised(ways[0]))
        exact += said == answer
        strange = set(re.findall(r"\w+", said.lower())) - known
        if strange:
            raise SystemExit(f"The answer to {ways[0]!r} holds words that are not in the corpus: {strange}")
    print(f"{exact} of {len(corpus.answers)} answers are word for word those of the corpus")
    for question in ("Who are you?", "hello", "What is Slipway?", "How many fish are in the lake?"):
        print(f"{question} -> {reply(model, tokenizer, question)}")
    for question in ("Who are you?", "hello"):
        if "Slipway's starter model" not in reply(model, tokenizer, question):
            raise SystemExit(f"Asked {question!r}, the model does not say what it is.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "starter" / "model")
    folder = parser.parse_args().out
    torch.set_num_threads(1)
    corpus = Corpus.read(CORPUS)
    tokenizer = train_tokenizer(corpus)
    model = train(corpus, tokenizer)
    # What is checked is what is saved.
    model.load_state_dict({name: value.to(torch.bfloat16).float() for name, value in model.state_dict().items()})
    save(model, tokenizer, folder)
    check(model, tokenizer, corpus, folder)


if __name__ == "__main__":
    main()
