// Draws the figures of a memory page in the colours of the preferred scheme, and again when that changes. A legend's entry
// shows or hides its trace. The colour "ink" is the scheme's own.
"use strict";
(() => {
  const text = document.getElementById("figures").textContent;
  const dark = matchMedia("(prefers-color-scheme: dark)"), narrow = matchMedia("(max-width: 700px)");
  const charts = [...document.querySelectorAll(".chart")];
  const entries = charts.map((chart) => [...chart.parentElement.querySelectorAll(".legend button")]);
  const schemes = {
    light: {ink: "#1c1c22", faint: "#5b5b66", grid: "#e4e4e0", ground: "#fcfcfa", box: "#ffffff",
      scale: [[0, "#f1f1ec"], [1, "#76addb"]]},
    dark: {ink: "#e4e4ea", faint: "#a3a3ae", grid: "#2f3139", ground: "#17181c", box: "#24262d",
      scale: [[0, "#23252c"], [1, "#2b649a"]]},
  };

  function template({ink, faint, grid, ground, box, scale}) {
    const axis = {
      color: faint, gridcolor: grid, zerolinecolor: grid, automargin: true, hoverformat: ",.4~r",
      ticks: "outside", ticklen: 4, tickcolor: ground, title: {font: {size: 13}, standoff: 8},
    };
    const bar = {marker: {line: {width: 0.5, color: ground}}};
    const heatmap = {
      colorscale: scale, showscale: false, xgap: 2, ygap: 2, texttemplate: "%{text}", textfont: {color: ink},
      hoverinfo: "x+y+text",
    };
    return {
      layout: {
        font: {family: 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif', size: narrow.matches ? 11 : 13, color: ink},
        paper_bgcolor: ground, plot_bgcolor: ground, xaxis: axis, yaxis: {...axis, fixedrange: true}, showlegend: false,
        margin: {l: narrow.matches ? 30 : 56, r: 16, t: 10, b: 40}, barmode: "stack", bargap: 0.1, hoversubplots: "axis",
        hoverlabel: {bgcolor: box, bordercolor: grid, namelength: -1, font: {color: ink}},
      },
      data: {bar: [bar], heatmap: [heatmap]},
    };
  }

  function draw(chart, number) {
    const colours = schemes[dark.matches ? "dark" : "light"];
    const figures = JSON.parse(text, (key, value) => key === "color" && value === "ink" ? colours.ink : value);
    const {data, layout} = figures[number];
    entries[number].forEach((entry, at) => { data[at].visible = entry.getAttribute("aria-pressed") === "true"; });
    const dragmode = layout.hovermode && !narrow.matches ? "zoom" : false;  // where it is narrow a finger scrolls
    const all = {...layout, dragmode, template: template(colours), autosize: true, uirevision: "kept"};
    Plotly.react(chart, data, all, {responsive: true, displayModeBar: false});
  }

  charts.forEach(draw);
  charts.forEach((chart, number) => entries[number].forEach((entry) => entry.addEventListener("click", () => {
    entry.setAttribute("aria-pressed", String(entry.getAttribute("aria-pressed") !== "true"));
    draw(chart, number);
  })));
  for (const query of [dark, narrow]) query.addEventListener("change", () => charts.forEach(draw));
})();
