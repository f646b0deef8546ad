// The launch page: marks the chosen card, brings its panel into view, keeps the price on the button true.
document.addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (!card) return;
  for (const other of document.querySelectorAll(".card[aria-current]")) other.removeAttribute("aria-current");
  card.setAttribute("aria-current", "true");
  document.getElementById("custom-model").value = "";
});

document.addEventListener("input", (event) => {
  if (event.target.id !== "custom-model") return;
  for (const card of document.querySelectorAll(".card[aria-current]")) card.removeAttribute("aria-current");
});

document.addEventListener("change", (event) => {
  const cost = document.getElementById("launch-cost");
  if (event.target.name === "hardware" && cost) cost.textContent = `${event.target.dataset.price} per hour`;
});

document.addEventListener("htmx:afterSettle", (event) => {
  const chosen = event.target;
  if (chosen.id !== "choice" || document.activeElement?.id === "custom-model") return;
  const { top, bottom } = chosen.getBoundingClientRect();
  if (bottom < 0 || top > innerHeight || top < 0) chosen.scrollIntoView({ block: "start" });
});
