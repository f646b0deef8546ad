// "/" goes to the search box, Escape leaves it; arrow keys walk along a row of tabs.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const search = document.querySelector("input[type=search]");
    if (!search) return;
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && event.target.matches("input[type=search]")) {
    event.target.blur();
  } else if (event.target.matches("[role=tab]")) {
    walk(event);
  }
});

function walk(event) {
  const tabs = [...event.target.closest("[role=tablist]").querySelectorAll("[role=tab]")];
  const here = tabs.indexOf(event.target);
  const there = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (there === undefined) return;
  event.preventDefault();
  tabs.at(there % tabs.length).focus();
}
