// Copy buttons: data-copy holds the selector of what to copy. The button says that it did.
const CONFIRM_MS = 1500;

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.querySelector(button.dataset.copy);
  const copied = await copy(source);
  announce(button, copied ? "Copied" : "Press Ctrl+C");
});

async function copy(source) {
  const text = source.value ?? source.textContent;
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // No clipboard over plain HTTP on another host: select the text and ask the browser the old way.
    select(source);
    return document.execCommand("copy");
  }
}

function select(source) {
  if (source.select) {
    source.select();
    return;
  }
  const range = document.createRange();
  range.selectNodeContents(source);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

function announce(button, words) {
  button.dataset.words ??= button.textContent;
  button.textContent = words;
  document.getElementById("announcements").textContent = words;
  clearTimeout(button.restore);
  button.restore = setTimeout(() => {
    button.textContent = button.dataset.words;
  }, CONFIRM_MS);
}
