// A click anywhere in a row opens it, unless it was on a control or ended a selection of text.
document.addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-href]");
  if (!row || event.target.closest("a, button, input, label, summary") || !getSelection().isCollapsed) return;
  if (event.ctrlKey || event.metaKey) open(row.dataset.href, "_blank");
  else location.assign(row.dataset.href);
});
