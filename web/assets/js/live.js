// What comes from the server without a page load: says when it no longer comes, and since when the page is old.
const LOST_AFTER_MS = 1000;
const connection = document.getElementById("connection");
let pending;

function lost() {
  if (pending) return;
  const since = new Date();
  // Leaving the page also ends its streams: do not flash a warning for that.
  pending = setTimeout(() => {
    connection.textContent = `Connection lost at ${since.toLocaleTimeString()}: reconnecting…`;
  }, LOST_AFTER_MS);
}

function found() {
  clearTimeout(pending);
  pending = undefined;
  connection.textContent = "";
}

document.addEventListener("htmx:sseError", lost);
document.addEventListener("htmx:sendError", lost);
document.addEventListener("htmx:sseOpen", found);
document.addEventListener("htmx:afterOnLoad", found);
