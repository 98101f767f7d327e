// What makes a flame graph answer to the mouse. The picture holds every box as a <g> of title, rect and (if any) text; their
// widths at the beginning are the data. Names come from untrusted programs: they are handled as text only.
"use strict";
(() => {
  const root = document.currentScript.closest("svg");
  const part = (name) => root.querySelector("." + name);
  const SVG = "http://www.w3.org/2000/svg";
  const CHAR = Number(root.dataset.char);
  const boxes = [...part("boxes").children].map((group) => {
    const rect = group.querySelector("rect");
    const title = group.querySelector("title").textContent;
    return {
      group, rect, title,
      name: title.slice(0, title.lastIndexOf(" (")),
      text: group.querySelector("text"),
      x: Number(rect.getAttribute("x")),
      y: Number(rect.getAttribute("y")),
      width: Number(rect.getAttribute("width")),
    };
  });
  const all = boxes[0];
  const details = part("details"), search = part("search"), reset = part("reset"), matched = part("matched");
  const byGroup = new Map(boxes.map((box) => [box.group, box]));
  // Boxes are written with three decimals.
  const within = (inner, outer) => inner.x >= outer.x - 0.002 && inner.x + inner.width <= outer.x + outer.width + 0.002;

  const cells = (text) => [...text].reduce((sum, char) => sum + (char < "\u1100" ? 1 : 2), 0);

  function cut(text, room) {
    if (cells(text) <= room) return text;
    let sum = 0, kept = "";
    for (const char of text) {
      sum += cells(char);
      if (sum > room - 2) break;
      kept += char;
    }
    return kept + "..";
  }

  function fitting(name, width) {
    const room = Math.floor((width - 4) / CHAR);
    if (room < 3) return "";
    const whole = cut(name, room);
    return whole === name ? whole : cut(name.replace(/^[^(\[]*\//, ""), room);
  }

  function place(box, x, width) {
    box.rect.setAttribute("x", x);
    box.rect.setAttribute("width", width);
    if (width > 3) box.rect.setAttribute("rx", 1); else box.rect.removeAttribute("rx");
    const text = fitting(box.name, width);
    if (text && !box.text) {
      box.text = box.group.appendChild(document.createElementNS(SVG, "text"));
      box.text.setAttribute("y", box.y + Number(root.dataset.base));
    }
    if (!box.text) return;
    box.text.setAttribute("x", x + 3);
    box.text.textContent = text;
  }

  function zoom(to) {
    const factor = all.width / to.width;
    for (const box of boxes) {
      const ancestor = box.y > to.y && within(to, box);
      const shown = ancestor || (box.y <= to.y && within(box, to));
      box.group.classList.toggle("hidden", !shown);
      box.group.classList.toggle("faded", ancestor);
      if (ancestor) place(box, all.x, all.width);
      else if (shown) place(box, all.x + (box.x - to.x) * factor, box.width * factor);
    }
    reset.classList.toggle("hidden", to === all);
  }

  function find(pattern) {
    let expression = null;
    try {
      if (pattern) expression = new RegExp(pattern);
    } catch (error) {
      matched.textContent = "no regular expression: " + pattern;
      return;
    }
    const found = [];
    for (const box of boxes) {
      const match = expression !== null && box !== all && expression.test(box.name);
      box.group.classList.toggle("match", match);
      if (match) found.push(box);
    }
    // A box over another that matches too counts once.
    let sum = 0, end = -1;
    found.sort((a, b) => a.x - b.x || b.width - a.width);
    for (const box of found) {
      if (box.x + box.width <= end + 0.002) continue;
      sum += box.width;
      end = box.x + box.width;
    }
    matched.textContent = expression ? "matched: " + (100 * sum / all.width).toFixed(2) + " %" : "";
    search.textContent = expression ? "Reset search" : "Search";
  }

  function ask() {
    const pattern = window.prompt("Functions to highlight (a regular expression):", "");
    if (pattern !== null) find(pattern);
  }

  const boxOf = (event) => byGroup.get(event.target.closest("g"));
  const tell = (event) => {
    const box = boxOf(event);
    details.textContent = box ? box.title : "";
    details.removeAttribute("textLength");
    // The whole name, however long; what a search matched stands to the right of it.
    const room = all.width - 200;
    if (cells(details.textContent) * CHAR > room) details.setAttribute("textLength", room);
  };
  part("boxes").addEventListener("mouseover", tell);
  part("boxes").addEventListener("mouseleave", () => { details.textContent = ""; });
  part("boxes").addEventListener("click", (event) => { if (boxOf(event)) zoom(boxOf(event)); });
  reset.addEventListener("click", () => zoom(all));
  search.addEventListener("click", () => { if (search.textContent === "Search") ask(); else find(""); });
  window.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "f") {
      event.preventDefault();
      ask();
    } else if (event.key === "Escape") {
      zoom(all);
      find("");
    }
  });
  // Without a script they would be promises.
  search.classList.remove("hidden");
})();
