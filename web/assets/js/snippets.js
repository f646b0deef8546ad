// Snippets in several languages: all are on the page, one below the other; this makes tabs of them.
const CHOICE = "slipway-language";

function show(group, language) {
  for (const tab of group.querySelectorAll("[role=tab]")) {
    const selected = tab.dataset.language === language;
    tab.setAttribute("aria-selected", selected);
    tab.tabIndex = selected ? 0 : -1;
  }
  for (const panel of group.querySelectorAll("[data-snippet]")) {
    panel.hidden = panel.dataset.snippet !== language;
  }
}

function prepare(root) {
  for (const group of root.querySelectorAll("[data-snippets]")) {
    const list = group.querySelector("[role=tablist]");
    list.hidden = false;
    const known = [...list.querySelectorAll("[role=tab]")].map((tab) => tab.dataset.language);
    const kept = localStorage.getItem(CHOICE);
    show(group, known.includes(kept) ? kept : known[0]);
    list.addEventListener("click", (event) => {
      const tab = event.target.closest("[role=tab]");
      if (!tab) return;
      localStorage.setItem(CHOICE, tab.dataset.language);
      show(group, tab.dataset.language);
    });
  }
}

// htmx announces the page itself and every part that it swaps in later.
document.addEventListener("htmx:load", (event) => prepare(event.detail.elt));
