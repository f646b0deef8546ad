// Talks to the instance through its API URL, as any client would, and shows tokens as they come.
import { serverSentData } from "./sse_reader.js";

const form = document.querySelector("[data-playground]");
if (form) playground(form);

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function playground(form) {
  const talk = document.getElementById("talk");
  const send = form.querySelector("[data-send]");
  const stop = form.querySelector("[data-stop]");
  const figures = document.getElementById("talk-figures");
  const message = form.elements.message;
  let turns = [];
  let running = null;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (message.value.trim() && !running) ask(message.value);
  });
  message.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  stop.addEventListener("click", () => running?.abort());
  form.querySelector("[data-clear]").addEventListener("click", () => {
    running?.abort();
    turns = [];
    talk.replaceChildren(element("p", "muted", talk.dataset.empty));
    figures.textContent = "";
    message.focus();
  });

  async function ask(text) {
    if (!turns.length) talk.replaceChildren();
    show("You", text);
    turns.push({ role: "user", content: text });
    message.value = "";
    const words = show(form.dataset.model, "");
    running = new AbortController();
    busy(true);
    const answer = { text: "", began: performance.now(), first: null, last: null, usage: null, ended: "" };
    try {
      await stream(answer, words);
    } catch (error) {
      answer.ended = error.name === "AbortError" ? "stopped" : "";
      if (error.name !== "AbortError") fail(words, error.message);
    } finally {
      running = null;
      busy(false);
    }
    if (answer.text) turns.push({ role: "assistant", content: answer.text });
    else turns.pop();
    if (!answer.text && answer.usage) words.replaceWith(element("p", "words muted", "The model ended its answer without a word."));
    figures.textContent = summary(answer);
  }

  async function stream(answer, words) {
    const response = await fetch(form.dataset.url, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": form.elements.csrf_token.value },
      body: JSON.stringify(request()),
      signal: running.signal,
    });
    if (!response.ok) throw new Error(await reasonOf(response));
    for await (const data of serverSentData(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      answer.usage = chunk.usage ?? answer.usage;
      const choice = chunk.choices?.[0];
      if (choice?.finish_reason) answer.ended = choice.finish_reason;
      if (!choice?.delta?.content) continue;
      answer.last = performance.now();
      answer.first ??= answer.last;
      answer.text += choice.delta.content;
      words.textContent = answer.text;
      talk.scrollTop = talk.scrollHeight;
    }
  }

  function request() {
    const system = form.elements.system.value.trim();
    const messages = system ? [{ role: "system", content: system }, ...turns] : turns;
    return {
      model: form.dataset.model,
      messages,
      stream: true,
      stream_options: { include_usage: true },
      temperature: form.elements.temperature.valueAsNumber,
      max_tokens: form.elements.max_tokens.valueAsNumber,
    };
  }

  function show(speaker, text) {
    const turn = element("div", "turn");
    const words = element("p", "words", text);
    turn.append(element("p", "speaker", speaker), words);
    talk.append(turn);
    talk.scrollTop = talk.scrollHeight;
    return words;
  }

  function fail(words, reason) {
    const note = element("p", "words failed", reason);
    note.setAttribute("role", "alert");
    words.after(note);
    if (!words.textContent) words.remove();
  }

  function busy(is) {
    send.disabled = is;
    stop.hidden = !is;
    talk.setAttribute("aria-busy", is);
  }
}

async function reasonOf(response) {
  const body = await response.json().catch(() => null);
  return body?.error?.message ?? body?.detail ?? `The server answered ${response.status} ${response.statusText}`;
}

// No tokens per second: a busy browser reads several tokens at once, and would claim thousands.
function summary({ began, first, last, usage, ended }) {
  const after = (moment) => `${((moment - began) / 1000).toFixed(2)}\u202fs`;
  const parts = [];
  if (first !== null) parts.push(`first token after ${after(first)}, last after ${after(last)}`);
  if (usage) parts.push(`${usage.prompt_tokens} tokens in, ${usage.completion_tokens} out`);
  if (ended === "length") parts.push("stopped at the longest answer allowed");
  if (ended === "stopped") parts.push("stopped by you");
  return parts.join(" · ");
}
