// What makes a waterfall answer to the mouse and the keyboard. The picture holds every line, hidden or not, in the order they
// are shown; `data-under` is the place of the line one is below of. Names come from untrusted programs: they are handled as
// text only.
"use strict";
(() => {
  const root = document.currentScript.closest("svg");
  const all = (selector, within = root) => [...within.querySelectorAll(selector)];
  const size = (name) => Number(root.dataset[name]);
  const unfold = root.querySelector(".unfold"), foot = root.querySelector(".foot"), ground = root.querySelector(".ground");
  const heading = root.querySelector(".heading"), median = heading.textContent;
  let picked = "";

  const lines = [];
  for (const group of root.querySelector(".lines").children) {
    const words = group.querySelector(".words");
    const line = {
      group, words, below: [], runs: new Map(),
      above: "under" in group.dataset ? lines[Number(group.dataset.under)] : null,
      open: group.classList.contains("open"),
      hit: group.querySelector(".hit"),
      name: words.querySelector(".name"),
      took: words.querySelector(".took"),
      share: words.querySelector(".share"),
      others: group.querySelector(".others"),
    };
    line.opened = line.open;
    line.tookAtFirst = line.took.textContent;
    line.shareAtFirst = line.share.textContent;
    line.nameAtFirst = line.name.textContent;
    line.fold = group.classList.contains("fold");
    for (const run of all(".run", group)) line.runs.set(run.dataset.run, {run, at: run.getAttribute("transform")});
    if (line.above) line.above.below.push(line);
    lines.push(line);
  }
  const byGroup = new Map(lines.map((line) => [line.group, line]));
  const foldable = lines.filter((line) => line.below.length > 0);

  const has = (line) => picked === "" || line.runs.has(picked) || line.below.some(has);
  const visible = (line) => has(line) && (!line.above || (line.above.open && visible(line.above)));

  function layout() {
    const pitch = picked === "" ? size("pitch") : size("alonePitch");
    let y = size("first");
    for (const line of lines) {
      const shown = visible(line);
      line.group.classList.toggle("hidden", !shown);
      line.group.classList.toggle("open", line.open && line.below.length > 0);
      if (line.below.length > 0) line.group.setAttribute("aria-expanded", String(line.open));
      if (!shown) continue;
      line.group.setAttribute("transform", `translate(0 ${y})`);
      line.hit.setAttribute("height", pitch);
      line.words.setAttribute("transform", `translate(0 ${pitch / 2})`);
      y += pitch;
    }
    for (const line of all(".grid line, .marks line")) line.setAttribute("y2", y);
    for (const band of all(".marks rect")) band.setAttribute("height", y - Number(band.getAttribute("y")));
    foot.setAttribute("transform", `translate(0 ${y})`);
    const height = y + size("foot");
    root.setAttribute("height", height);
    root.setAttribute("viewBox", `0 0 ${root.getAttribute("width")} ${height}`);
    ground.setAttribute("height", height);
    restack();
    unfold.textContent = foldable.every((line) => line.open) ? "Fold" : "Unfold all";
  }

  // Where the picture is one of several below one another, they move with its height.
  function restack() {
    const stack = root.parentNode;
    if (!(stack instanceof SVGSVGElement)) return;
    let y = 0;
    for (const each of stack.children) {
      each.setAttribute("y", y);
      y += Number(each.getAttribute("height"));
    }
    stack.setAttribute("height", y);
    stack.setAttribute("viewBox", `0 0 ${root.getAttribute("width")} ${y}`);
  }

  function set(line, open) {
    line.open = open;
    layout();
  }

  function unfoldAll() {
    const open = foldable.some((line) => !line.open);
    for (const line of foldable) line.open = open || line.opened;
    layout();
  }

  // One start alone has all the height of a line, and its own numbers.
  function pick(run) {
    picked = run;
    const stretch = size("aloneBar") / size("bar"), top = (size("alonePitch") - size("aloneBar")) / 2;
    for (const line of lines) {
      for (const [which, {run: bars, at}] of line.runs) {
        bars.classList.toggle("hidden", run !== "" && which !== run);
        bars.setAttribute("transform", which === run ? `translate(0 ${top}) scale(1 ${stretch})` : at);
      }
      const own = line.runs.get(run);
      line.took.textContent = run === "" ? line.tookAtFirst : own ? own.run.dataset.took : "";
      line.share.textContent = run === "" ? line.shareAtFirst : own ? own.run.dataset.share : "";
      if (line.fold) line.name.textContent = run === "" ? line.nameAtFirst : `${line.below.filter(has).length} shorter`;
      if (line.others) line.others.classList.toggle("hidden", run !== "");
    }
    heading.textContent = run === "" ? median : "took";
    for (const about of all(".about")) about.classList.toggle("hidden", about.dataset.run !== run);
    const marked = run === "" ? root.dataset.reference : run;
    for (const marks of all(".marks")) marks.classList.toggle("hidden", marks.dataset.run !== marked);
    for (const chip of all(".chip")) {
      chip.classList.toggle("picked", chip.dataset.run === run);
      chip.setAttribute("aria-pressed", String(chip.dataset.run === run));
    }
    layout();
  }

  function button(element, label, press) {
    element.setAttribute("role", "button");
    element.setAttribute("tabindex", "0");
    element.setAttribute("aria-label", label);
    element.addEventListener("click", press);
    element.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      press();
    });
  }

  for (const line of foldable) {
    line.group.classList.add("foldable");
    line.words.querySelector(".twisty").classList.remove("hidden");
    const title = line.name.querySelector("title");
    const label = [title ? title.textContent : line.name.textContent, line.took.textContent, line.share.textContent];
    button(line.group, label.filter(Boolean).join(", "), () => set(line, !line.open));
    line.group.addEventListener("keydown", (event) => {
      if (event.key === "ArrowRight") set(line, true);
      else if (event.key === "ArrowLeft") set(line, false);
      else return;
      event.preventDefault();
    });
  }
  for (const chip of all(".chip")) button(chip, chip.querySelector("title").textContent, () => pick(chip.dataset.run));
  button(unfold, "Unfold or fold all", unfoldAll);
  // Without a script they would be promises.
  for (const control of all(".picker")) control.classList.remove("hidden");
  if (foldable.length > 0) unfold.classList.remove("hidden");
  pick("");

  // The page's table comes after the picture.
  function sortable(table) {
    const body = table.tBodies[0], rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.classList.contains("sorted")) return;
      const press = document.createElement("button");
      press.type = "button";
      press.textContent = head.textContent;
      press.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const order = {descending: "ascending", ascending: null}[before];
        const next = order === undefined ? "descending" : order;
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next) head.setAttribute("aria-sort", next);
        const value = (row) => Number(row.cells[column].dataset.value);
        const sign = next === "ascending" ? 1 : -1;
        body.append(...(next ? [...rows].sort((a, b) => sign * (value(a) - value(b))) : rows));
      });
      head.replaceChildren(press);
    });
  }
  document.addEventListener("DOMContentLoaded", () => {
    for (const table of document.querySelectorAll("table.rows")) sortable(table);
  });
})();
