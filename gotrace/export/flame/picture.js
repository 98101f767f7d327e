// What makes a flame graph answer to the mouse. The picture holds every box as a <g> of title, rect and (if any) text; their
// places at the beginning are the data. Names come from untrusted programs: they are handled as text only.
"use strict";
(() => {
  const root = document.currentScript.closest("svg");
  const part = (name) => root.querySelector("." + name);
  const SVG = "http://www.w3.org/2000/svg", HTML = "http://www.w3.org/1999/xhtml";
  const MARGIN = 10, BAR = 24, SEARCH = 190;
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
  const bar = part("bar"), details = part("details"), reset = part("reset"), matched = part("matched");
  let zoomed = all, inner = all.width;  // inner: how wide the outermost box is now
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
    const factor = inner / to.width;
    for (const box of boxes) {
      const ancestor = box.y < to.y && within(to, box);
      const shown = ancestor || (box.y >= to.y && within(box, to));
      box.group.classList.toggle("hidden", !shown);
      box.group.classList.toggle("faded", ancestor);
      if (ancestor) place(box, MARGIN, inner);
      else if (shown) place(box, MARGIN + (box.x - to.x) * factor, box.width * factor);
    }
    zoomed = to;
    reset.classList.toggle("hidden", to === all);
  }

  // As wide as the window, whatever that is by now.
  function fit() {
    const width = Math.max(root.getBoundingClientRect().width, 600);
    field.setAttribute("x", width - MARGIN - SEARCH + 10);
    if (width - 2 * MARGIN === inner) return;
    inner = width - 2 * MARGIN;
    zoom(zoomed);
  }

  // The bar stays in view when the boxes are scrolled.
  function pin() {
    const y = Number(bar.dataset.y), hidden = -(root.getBoundingClientRect().top + y);
    bar.setAttribute("transform", "translate(0 " + Math.min(Math.max(hidden, 0), height - y - BAR) + ")");
  }

  function find(pattern) {
    let expression = null;
    try {
      if (pattern) expression = new RegExp(pattern);
    } catch (error) {
      matched.textContent = "invalid expression";
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
  }

  const boxOf = (event) => byGroup.get(event.target.closest("g"));
  const tell = (event) => {
    const box = boxOf(event);
    details.textContent = box ? box.title : "";
    details.removeAttribute("textLength");
    // The whole name, however long; what a search matched stands to the right of it.
    const room = inner - SEARCH - 230;
    if (cells(details.textContent) * CHAR > room) details.setAttribute("textLength", room);
  };
  part("boxes").addEventListener("mouseover", tell);
  part("boxes").addEventListener("mouseleave", () => { details.textContent = ""; });
  part("boxes").addEventListener("click", (event) => { if (boxOf(event)) zoom(boxOf(event)); });
  reset.addEventListener("click", () => zoom(all));
  window.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "f" && document.activeElement !== search) {
      event.preventDefault();  // once more, and it is the browser's own
      search.focus();
      search.select();
    } else if (event.key === "Escape") {
      zoom(all);
      search.value = "";
      find("");
    }
  });
  const height = Number(root.getAttribute("height"));
  root.removeAttribute("viewBox");
  root.style.width = "100%";
  root.style.height = height + "px";
  const field = bar.appendChild(document.createElementNS(SVG, "foreignObject"));
  for (const [name, value] of [["y", Number(bar.dataset.y) + 2], ["width", SEARCH - 10], ["height", BAR - 2]]) {
    field.setAttribute(name, value);
  }
  const search = field.appendChild(document.createElementNS(HTML, "input"));
  search.setAttribute("placeholder", "search (Ctrl-F)");
  search.setAttribute("title", "functions to highlight: a regular expression");
  search.addEventListener("input", () => find(search.value));
  new ResizeObserver(() => { fit(); pin(); }).observe(root);  // of a page: a scroll bar may come later
  window.addEventListener("resize", () => { fit(); pin(); });
  window.addEventListener("scroll", pin);
  fit();
  pin();
})();
