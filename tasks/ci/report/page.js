
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // A check that is linked to is shown, whatever is folded or filtered around it. Newer browsers
  // unfold by themselves, but don't put the summary in view.
  function reveal(id) {
    const target = id && byId(id);
    if (!target) return;
    if (target.closest("[hidden]")) reset();
    for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) {
      fold.open = true;
    }
    const summary = target.previousElementSibling;
    if (!summary || summary.tagName !== "SUMMARY") return;
    summary.focus({ preventScroll: true });
    summary.scrollIntoView({ block: "start" });
  }
  const here = () => decodeURIComponent(location.hash.slice(1));
  addEventListener("hashchange", () => reveal(here()));
  document.addEventListener("click", (event) => {
    // What is opened by hand can be linked to, too: its address stands in the address bar.
    const summary = event.target.closest("summary");
    const body = summary && !summary.parentElement.open && summary.nextElementSibling;
    if (body && body.id) history.replaceState(null, "", `#${body.id}`);
    const link = event.target.closest('a[href^="#"]');
    // A second click on the same link changes no hash.
    if (link && link.hash === location.hash) reveal(here());
  });

  // Paper can't be unfolded.
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = all("details.check.f, details.check.e")
      .flatMap((check) => [check, check.closest("details.image")])
      .filter((fold) => !fold.open);
    unfolded.forEach((fold) => { fold.open = true; });
  });
  addEventListener("afterprint", () => unfolded.forEach((fold) => { fold.open = false; }));

  const grid = byId("grid");
  if (!grid) {
    reveal(here());
    return;
  }

  // The grid: groups that fold, arrow keys between cells.
  const blocks = all("tbody", grid).map((body) => {
    const [head, ...rows] = body.rows;
    const name = head.querySelector(".name");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name.textContent;
    name.replaceWith(button);
    const block = { body, head, rows, button, open: !("calm" in body.dataset) };
    button.addEventListener("click", () => {
      block.open = !block.open;
      apply();
    });
    return block;
  });
  const fold = byId("fold");
  fold.hidden = false;
  fold.addEventListener("click", () => {
    const open = blocks.some((block) => !block.open);
    blocks.forEach((block) => { block.open = open; });
    apply();
  });

  let current = null;
  function makeCurrent(link) {
    if (current) current.tabIndex = -1;
    current = link;
    if (current) current.tabIndex = 0;
  }
  const cellLinks = all("td a", grid);
  cellLinks.forEach((link) => { link.tabIndex = -1; });
  grid.addEventListener("focusin", (event) => {
    if (event.target.closest("td")) makeCurrent(event.target);
  });
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  grid.addEventListener("keydown", (event) => {
    const cell = event.target.closest("td");
    const step = steps[event.key];
    if (!cell || !step) return;
    event.preventDefault();
    const rows = all("tbody tr:not([hidden])", grid);
    let row = rows.indexOf(cell.parentElement);
    let column = cell.cellIndex;
    for (;;) {
      row += step[0];
      column += step[1];
      const next = rows[row] && rows[row].cells[column];
      if (!next || column < 1) return;
      const link = next.querySelector("a");
      if (link) {
        link.focus();
        return;
      }
    }
  });
  const heads = all("thead .image a", grid).map((link) => link.textContent);
  grid.addEventListener("mouseover", (event) => {
    const link = event.target.closest("td a");
    if (!link || link.title) return;
    const cell = link.parentElement;
    const row = cell.parentElement.cells[0].textContent.trim();
    link.title = `${heads[cell.cellIndex - 1]} · ${row} · ${link.ariaLabel}`;
  });

  // The filters: for the grid and for the details alike.
  const filters = byId("filters");
  const text = byId("text");
  const group = byId("group");
  const toggles = all("[data-outcome]", filters);
  const images = all("details.image");
  const cells = new Map();
  blocks.forEach((block) => block.rows.forEach((row) => all("td a", row).forEach((link) => {
    cells.set(link.hash.slice(1), link);
  })));
  const checks = images.flatMap((image) => all("details.check", image).map((check) => ({
    node: check,
    outcome: check.classList[1],
    group: check.closest(".group").dataset.group,
    cell: cells.get(check.lastElementChild.id),
    words: "",
    image,
  })));
  const words = (check) => {
    check.words ||= `${check.image.dataset.name} ${check.group} ${check.node.textContent}`.toLowerCase();
    return check.words;
  };

  function apply() {
    const wanted = toggles.filter((button) => button.ariaPressed === "true")
      .map((button) => button.dataset.outcome);
    const sought = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const filtered = wanted.length > 0 || sought.length > 0 || group.value !== "";
    const fits = (outcome, name, said) => (!wanted.length || wanted.includes(outcome))
      && (!group.value || group.value === name)
      && (!sought.length || sought.every((word) => said().includes(word)));
    let shown = 0;
    checks.forEach((check) => {
      const fit = fits(check.outcome, check.group, () => words(check));
      check.node.hidden = !fit;
      if (check.cell) check.cell.classList.toggle("dim", !fit);
      shown += fit;
    });
    all("section.group").forEach((section) => {
      section.hidden = !section.querySelector(".check:not([hidden])");
    });
    images.forEach((image) => {
      const troubled = "trouble" in image.dataset
        && fits("e", "validation", () => image.textContent.toLowerCase());
      image.hidden = filtered && !troubled && !image.querySelector(".check:not([hidden])");
    });
    blocks.forEach((block) => {
      const open = filtered || block.open;
      block.rows.forEach((row) => {
        row.hidden = !open || !row.querySelector("a:not(.dim)");
      });
      block.head.hidden = filtered && block.rows.every((row) => row.hidden);
      block.button.ariaExpanded = String(open);
      block.button.disabled = filtered;
    });
    fold.textContent = blocks.every((block) => block.open) ? "Close all groups" : "Open all groups";
    fold.disabled = filtered;
    byId("reset").hidden = !filtered;
    byId("count").textContent = filtered ? `${shown} of ${checks.length}` : "";
    byId("filtered").textContent = filtered ? `filtered: ${shown} of ${checks.length} checks` : "";
    if (!current || current.closest("[hidden]")) {
      const seen = cellLinks.filter((link) => !link.closest("[hidden]"));
      makeCurrent(seen.find((link) => link.closest(".f, .e")) || seen[0] || null);
    }
  }

  function reset() {
    toggles.forEach((button) => { button.ariaPressed = "false"; });
    text.value = "";
    group.value = "";
    apply();
  }

  toggles.forEach((button) => button.addEventListener("click", () => {
    button.ariaPressed = String(button.ariaPressed !== "true");
    apply();
  }));
  group.addEventListener("change", apply);
  text.addEventListener("input", apply);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Escape") reset();
  });
  byId("reset").addEventListener("click", () => {
    reset();
    text.focus();
  });
  filters.hidden = false;
  const measure = () => {
    const sticks = getComputedStyle(filters).position === "sticky";
    document.documentElement.style.setProperty("--bar", `${sticks ? filters.offsetHeight : 0}px`);
  };
  new ResizeObserver(measure).observe(filters);
  measure();
  apply();
  reveal(here());
})();
