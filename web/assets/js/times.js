// Keeps "3 min ago" and "for 12 s" true between two updates from the server. The same words as web/formatting.py.
const THIN = "\u202f";
const TICK_MS = 1000;

function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([value]) => value);
  return parts
    .slice(first < 0 ? 3 : first, first < 0 ? 4 : first + 2)
    .filter(([value, unit]) => value || unit === "s")
    .map(([value, unit]) => `${value}${THIN}${unit}`)
    .join(" ");
}

function ago(seconds) {
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)}${THIN}${unit} ago`;
  }
  return seconds < 10 ? "just now" : `${Math.floor(seconds)}${THIN}s ago`;
}

function refresh() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[data-since], time[data-ago]")) {
    const seconds = (now - Date.parse(time.dateTime)) / 1000;
    const words = "since" in time.dataset ? duration(seconds) : ago(seconds);
    if (time.textContent !== words) time.textContent = words;
  }
}

setInterval(refresh, TICK_MS);
