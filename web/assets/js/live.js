// Live parts: says when the connection is lost, and since when the page is old.
// A page is live where an element has sse-connect (htmx's SSE extension swaps the fragments that arrive).
const LOST_AFTER_MS = 1000;
let pending;

document.addEventListener("htmx:sseError", () => {
  const lost = document.getElementById("connection");
  if (!lost || pending) return;
  const since = new Date();
  // A reload of the page also ends the stream: do not flash a warning for that.
  pending = setTimeout(() => {
    lost.textContent = `Connection lost at ${since.toLocaleTimeString()}: reconnecting…`;
  }, LOST_AFTER_MS);
});

document.addEventListener("htmx:sseOpen", () => {
  clearTimeout(pending);
  pending = undefined;
  const lost = document.getElementById("connection");
  if (lost) lost.textContent = "";
});
