// The theme switch without a page load; the server keeps the choice in the same cookie.
const THEMES = ["auto", "light", "dark"];
const A_YEAR = 365 * 24 * 3600;

document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-theme-switch]");
  if (!form) return;
  event.preventDefault();
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
  root.dataset.theme = next;
  document.cookie = `slipway_theme=${next}; path=/; max-age=${A_YEAR}; samesite=lax`;
  form.querySelector("[data-theme-name]").textContent = next;
});
