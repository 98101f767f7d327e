// Draws the figures of a memory page in the colours of the preferred scheme and with as much room as there is, and again
// when that changes. The colour "ink" is the scheme's own.
"use strict";
(() => {
  const text = document.getElementById("figures").textContent;
  const dark = matchMedia("(prefers-color-scheme: dark)"), narrow = matchMedia("(max-width: 700px)");
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
    return {
      layout: {
        font: {family: 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif', size: narrow.matches ? 11 : 13, color: ink},
        paper_bgcolor: ground, plot_bgcolor: ground, xaxis: axis, yaxis: {...axis, fixedrange: true},
        margin: {l: narrow.matches ? 30 : 56, r: 16, t: 30, b: 40}, barmode: "stack", bargap: 0.1, hoversubplots: "axis",
        hoverlabel: {bgcolor: box, bordercolor: grid, namelength: -1, font: {color: ink}},
        legend: {orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", traceorder: "normal"},
      },
      data: {
        bar: [{marker: {line: {width: 0.5, color: ground}}}],
        heatmap: [{
          colorscale: scale, showscale: false, xgap: 2, ygap: 2, texttemplate: "%{text}", textfont: {color: ink},
          hoverinfo: "x+y+text",
        }],
      },
    };
  }

  function draw() {
    const colours = schemes[dark.matches ? "dark" : "light"];
    const figures = JSON.parse(text, (key, value) => key === "color" && value === "ink" ? colours.ink : value);
    figures.forEach(({data, layout}, number) => {
      const height = layout.height + (narrow.matches ? 10 * data.length : 0);  // for the legend
      const dragmode = layout.hovermode && !narrow.matches ? "zoom" : false;  // where it is narrow a finger scrolls
      const all = {...layout, height, dragmode, template: template(colours), autosize: true, uirevision: "kept"};
      const chart = document.getElementById(`chart${number}`);
      chart.style.height = `${height}px`;
      Plotly.react(chart, data, all, {responsive: true, displayModeBar: false});
    });
  }

  draw();
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);
})();
