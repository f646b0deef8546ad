// The log of an instance, as it grows. Stays at the end unless the reader has scrolled up.
const KEEP = 2_000_000; // characters; a browser grows slow far above this

const log = document.querySelector("[data-log-stream]");
if (log) {
  const source = new EventSource(log.dataset.logStream);
  const connection = document.getElementById("connection");
  log.scrollTop = log.scrollHeight;

  source.addEventListener("open", () => {
    connection.textContent = "";
  });
  source.addEventListener("log", (event) => {
    const follows = log.scrollTop + log.clientHeight >= log.scrollHeight - 24;
    log.textContent = (log.textContent + JSON.parse(event.data).text).slice(-KEEP);
    if (follows) log.scrollTop = log.scrollHeight;
  });
  source.addEventListener("error", () => {
    connection.textContent = "Connection lost: reconnecting…";
  });
}
