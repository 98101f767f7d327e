// Draws the figures of a page: charts over time with uPlot, horizontal bars as HTML. Each has a legend, whose entries show or
// hide a series and give its value at the pointer. The colour "ink" is that of the text in the preferred scheme.
"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const style = getComputedStyle(document.body);
  const scheme = (name) => style.getPropertyValue("--" + name);
  const plots = [];

  const number = (value) => value.toLocaleString("en", Number.isInteger(value) ? {} : {maximumSignificantDigits: 4});
  const short = (value) => {
    const rounded = Number(value.toPrecision(4));
    const power = rounded < 1 ? 0 : Math.min(4, Math.floor(Math.log10(rounded) / 3));
    return number(rounded / 1000 ** power) + ["", "k", "M", "G", "T"][power];
  };
  const DURATIONS = [[60e9, "min"], [1e9, "s"], [1e6, "ms"], [1e3, "us"]];
  // Nanoseconds as tables have them: three significant digits.
  function duration(ns) {
    const [factor, unit] = DURATIONS.find(([factor]) => ns >= 0.9995 * factor) ?? [1, "ns"];
    const scaled = ns / factor;
    return `${scaled.toFixed(factor === 1 ? 0 : scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0)} ${unit}`;
  }
  const SIZES = [" B", " KiB", " MiB", " GiB"];
  // With its unit; sizes below 1 go to the next smaller unit.
  function full(value, unit) {
    if (unit === " ns") return duration(value);
    let at = SIZES.indexOf(unit);
    for (; at > 0 && value < 1; at -= 1) value *= 1024;
    return number(value) + (SIZES[at] ?? unit);
  }

  // At an axis.
  function tick(value, unit) {
    if (unit !== " ns") return short(value);
    const [factor, name] = DURATIONS.find(([factor]) => value >= factor) ?? [1, "ns"];
    return `${number(value / factor)} ${name}`;
  }

  const iso = (ms) => new Date(Math.round(ms)).toISOString();

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // The legend of the series; `tell` sets the value of each.
  function legend(series, changed) {
    const values = series.map(() => element("output"));
    const entries = series.map((each, at) => {
      const swatch = element("span", {className: each.style});
      swatch.style.borderColor = each.colour === "ink" ? "currentcolor" : each.colour;
      swatch.style.borderTopStyle = {dash: "dashed", dot: "dotted"}[each.dash] ?? "solid";
      const button = element("button", {type: "button"}, swatch, each.name);
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => {
        each.hidden = !each.hidden;
        button.setAttribute("aria-pressed", String(!each.hidden));
        changed();
      });
      return element("li", {}, button, values[at]);
    });
    return {
      list: element("ul", {className: "legend"}, ...entries),
      tell: (texts) => values.forEach((value, at) => { value.textContent = texts[at]; }),
    };
  }

  // Charts one below the other that share a time axis, in UTC.
  function overTime(place, {times, names, length, whole, charts}, key) {
    const series = charts.flatMap((chart) => chart.series.map((each) => Object.assign(each, {unit: chart.unit})));
    const own = [];
    const {list, tell} = legend(series, () => own.forEach((plot) => plot.renew()));
    const moment = element("p", {className: "moment"});
    const utc = (ms) => iso(ms).replace("T", " ").replace("Z", " UTC");
    function tellOf(at) {
      const last = at === null;
      at ??= times.length - 1;
      moment.textContent = (last ? "Values at the end, " : "Values at ") + (names ? names[at] + ", " : "") + utc(times[at]);
      tell(series.map(({values, unit}) => values[at] === null ? "?" : full(values[at], unit)));
    }
    place.append(moment, list);
    charts.forEach((chart, at) => {
      place.append(element("p", {className: "axis", textContent: chart.axis}));
      const size = {width: place.clientWidth, height: at ? 160 : 300};
      own.push(plotted(place, chart, {times, length, whole, key, size, labelled: at === charts.length - 1, tellOf}));
    });
    tellOf(null);
    plots.push(...own);
  }

  const stamp = (ms, step) => {
    const text = iso(ms);
    return step >= 86400e3 ? text.slice(0, 10) : text.slice(11, step >= 60e3 ? 16 : step >= 1e3 ? 19 : 23);
  };

  const AXIS = {
    stroke: () => scheme("faint"), font: `12px ${style.fontFamily}`, ticks: {show: false},
    grid: {stroke: () => scheme("grid"), width: 1},
  };
  const axisOfTime = (labelled) => ({
    ...AXIS, space: 90, size: labelled ? 28 : 4,
    values: (_, splits, axis, space, step) => labelled ? splits.map((each) => stamp(each, step)) : [],
  });
  // From the power of ten below the least to the one above the most.
  const powers = (least, most) => [Math.floor(Math.log10(least) + 1e-9), Math.ceil(Math.log10(most) - 1e-9)];
  const around = (least, most) => {
    const [from, to] = powers(least, most);
    return [10 ** from, 10 ** Math.max(to, from + 1)];
  };
  const axisOfLogs = {
    ...AXIS, size: 62, splits: (_, at, least, most) => {
      const [from, to] = powers(least, most);
      return Array.from({length: to - from + 1}, (_, at) => 10 ** (from + at));
    }, filter: (_, splits) => splits, values: (_, splits) => splits.map((each) => tick(each, " ns")),
  };

  function plotted(place, chart, {times, length, whole, key, size, labelled, tellOf}) {
    // Areas and columns are stacked: the largest sum is drawn first, and each next one covers all of it but its own part.
    const stacked = chart.series.filter((each) => each.style !== "line");
    const order = [...[...stacked].reverse(), ...chart.series.filter((each) => each.style === "line")];
    const nothing = times.map(() => null);
    function drawn() {
      const sums = new Map();
      let sum = times.map(() => 0);
      for (const each of stacked) if (!each.hidden) sums.set(each, sum = sum.map((below, at) => below + each.values[at]));
      return [times, ...order.map((each) => each.hidden ? nothing : sums.get(each) ?? each.values)];
    }
    const last = times.at(-1);
    const plot = new uPlot({
      ...size, ms: 1, padding: [8, 44, 0, 0], legend: {show: false},
      cursor: {y: false, points: {show: false}, drag: {x: true, y: false}, sync: {key}},
      scales: {
        x: {time: true, range: (_, from, to) => {
          if (whole && from === times[0] && to === last) return whole;
          if (times.length > 1) return [from, to === last ? to + length : to];
          return length ? [last, last + length] : [last - 500, last + 500];
        }},
        y: {distr: chart.log ? 3 : 1, range: (_, least, most) => {
          if (most === null) return chart.log ? [1, 10] : [0, 1];
          if (chart.log) return around(least, most);
          return chart.zero ? [0, most * 1.05 || 1] : uPlot.rangeNum(least, most, 0.1, true);
        }},
      },
      axes: [
        axisOfTime(labelled),
        chart.log ? axisOfLogs : {...AXIS, size: 62, values: (_, splits) => splits.map(short)},
      ],
      series: [{}, ...order.map((each) => lookOf(each, !stacked.length))],
      hooks: {setCursor: [(plot) => {
        let at = plot.cursor.idx;
        // A column begins at its time, and the nearest time may be that of the next one.
        if (length && at > 0 && plot.posToVal(plot.cursor.left, "x") < times[at]) at -= 1;
        tellOf(plot.cursor.left < 0 ? null : at);
      }]},
    }, drawn(), place);
    plot.renew = () => {
      const {min, max} = plot.scales.x;
      plot.setData(drawn());
      plot.setScale("x", {min, max});  // stay zoomed in
    };
    place.plots = [...place.plots ?? [], plot];  // for inspection from a console
    return plot;
  }

  function lookOf({style, colour, width, dash}, dots) {
    const paint = () => colour === "ink" ? scheme("ink") : colour;
    const points = {...(dots ? {} : {show: false}), size: 5, fill: paint};  // where there is room for them
    const dashes = {dash: [8, 5], dot: [2, 4]}[dash];
    if (style === "line") return {stroke: paint, width, dash: dashes, points};
    const paths = style === "column" ? uPlot.paths.bars({size: [0.9], align: 1}) : undefined;
    return {stroke: () => scheme("ground"), width: 0.5, fill: paint, paths, points: {show: false}};
  }

  // Horizontal bars, one row for each name: stacked, or one below the other with their values.
  function bars(place, {rows, series, axis, unit, stacked, log}) {
    const {list, tell} = legend(series, draw);
    const chart = element("div", {className: "bars"});
    const text = (value) => value === null ? "?" : full(value, unit);
    const told = (row) => tell(series.map(({values}) => row === null ? "" : text(values[row])));

    function draw() {
      const shown = series.filter((each) => !each.hidden);
      const solid = shown.filter((each) => each.style === "bar");
      const known = shown.flatMap(({values}) => values.filter((value) => value > 0));
      const sums = rows.map((_, row) => solid.reduce((sum, {values}) => sum + values[row], 0));
      const most = Math.max(...known, ...(stacked ? sums : []), 0) || 1;
      const {ticks, share} = log ? decades(Math.min(...known, most), most) : steps(most);
      const name = (value) => unit === " ns" ? tick(value, unit) : short(value) + unit;
      const labels = ticks.map((value) => element("span", {textContent: name(value)}));
      labels.forEach((label, at) => { label.style.left = `${100 * share(ticks[at])}%`; });
      chart.replaceChildren(...rows.flatMap((row, at) => {
        const track = element("div", {className: `track${stacked ? " stacked" : ""}${rows.length > 5 ? " thin" : ""}`});
        track.style.backgroundSize = `${100 / (ticks.length - 1)}% 100%`;
        let begin = 0;
        for (const each of shown) {
          const value = each.values[at];
          if (!value) continue;
          const name = [row, each.name].filter(Boolean).join(", ");
          const bar = element("div", {className: each.style, title: `${name}: ${text(value)}`});
          if (each.style === "bar") {
            bar.style.background = each.colour;
            bar.style.width = `${100 * share(value)}%`;
            bar.style.left = stacked ? `${100 * begin}%` : "";
            if (!stacked) bar.append(element("output", {textContent: unit === " ns" ? duration(value) : short(value)}));
            begin += share(value);
          } else bar.style.left = `${100 * share(value)}%`;
          track.append(bar);
        }
        track.addEventListener("pointerenter", () => told(at));
        track.addEventListener("pointerleave", () => told(rows.length === 1 ? 0 : null));
        return [element("div", {textContent: row}), track];
      }), element("div", {className: "ticks"}, ...labels));
    }

    draw();
    told(rows.length === 1 ? 0 : null);
    place.append(list, chart, element("p", {className: "axis", textContent: axis}));
  }

  function steps(most) {
    const power = 10 ** Math.floor(Math.log10(most / 5));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => most / each <= 6);
    const count = Math.ceil(most / step);
    return {ticks: Array.from({length: count + 1}, (_, at) => at * step), share: (value) => value / (count * step)};
  }

  function decades(least, most) {
    // Even the smallest value has some length.
    const from = Math.ceil(Math.log10(least)) - 1, count = Math.max(1, Math.ceil(Math.log10(most)) - from);
    const share = (value) => (Math.log10(value) - from) / count;
    return {ticks: Array.from({length: count + 1}, (_, at) => 10 ** (from + at)), share};
  }

  // Pauses by when and how long: a dot for each that is known by itself, shades for how many others there are. A chart for the
  // total and one for each part, with one axis of lengths.
  const PART = {total: "total, what the runtime reports", restart: "restart, after the total"};
  function pauses(place, {origin, end, width, lowest, perDecade, reasons, at, reason, cycle, goid, charts, lines, open}, key) {
    const times = at.length ? at.map((us) => origin + us / 1000) : [origin, end];
    const whole = [Math.min(origin, times[0]), Math.max(end, times.at(-1))];
    const series = reasons.map((each) => ({...each, style: "dot"}));
    const crowded = at.length > 500;  // then dots are seen through each other
    const own = [];
    const {list, tell} = legend(series, () => own.forEach((plot) => plot.renew()));
    const moment = element("p", {className: "moment"});
    const counts = reasons.map(({count}) => number(count));
    place.append(moment, list);

    const bottom = (bin) => lowest * 10 ** (bin / perDecade);
    // The parts have one axis, the total has its own. What is shorter than an axis reaches stands at its end.
    function rangeOf(some) {
      let least = Infinity, most = 0;
      for (const {values, cells} of some) {
        for (const value of values) if (value !== null) [least, most] = [Math.min(least, value), Math.max(most, value)];
        for (const [, flat] of cells) for (let at = 1; at < flat.length; at += 3) {
          [least, most] = [Math.min(least, bottom(flat[at])), Math.max(most, bottom(flat[at] + 1))];
        }
      }
      return most ? around(Math.max(least, lowest), Math.max(most, 10 * lowest)) : [1e3, 1e6];
    }
    const [total, ...parts] = charts;
    total.range = rangeOf([total]);
    const common = rangeOf(parts);
    for (const each of parts) each.range = common;
    const height = (value, {range}) => Math.min(Math.max(value, range[0]), range[1]);

    const utc = (ms) => iso(ms).replace("T", " ").replace("Z", " UTC");
    const value = (chart, at) => {
      const found = charts.find(({axis}) => axis === chart)?.values[at];
      return found === undefined || found === null ? "?" : duration(found);
    };
    function tellPause(at) {
      const more = [cycle[at] === null ? "" : `, GC cycle ${cycle[at]}`, goid[at] === null ? "" : `, goroutine ${goid[at]}`];
      moment.textContent = `${utc(times[at])}: ${reasons[reason[at]].name}, total ${value("total", at)}, of which stopping ` +
        `${value("stopping", at)}, stopped ${value("stopped", at)}; restart ${value("restart", at)}${more.join("")}`;
    }
    function tellNothing() {
      moment.textContent = at.length ? "Point at a dot or a shade." : "";
      own.forEach(({ring}) => { ring.hidden = true; });
      tell(counts);
    }

    function pointed(plot, chart) {
      const {left, top} = plot.cursor;
      let found = -1, distance = 20 ** 2;
      if (at.length) times.forEach((time, number) => {
        const length = chart.values[number];
        if (length === null || series[reason[number]].hidden) return;
        const x = plot.valToPos(time, "x") - left;
        if (Math.abs(x) > 20) return;
        const y = plot.valToPos(height(length, chart), "y") - top;
        if (x * x + y * y < distance) [found, distance] = [number, x * x + y * y];
      });
      own.forEach((each, number) => {
        const length = found < 0 ? null : charts[number].values[found];
        each.ring.hidden = length === null;
        if (length === null) return;
        each.ring.style.left = `${each.valToPos(times[found], "x")}px`;
        each.ring.style.top = `${each.valToPos(height(length, charts[number]), "y")}px`;
      });
      if (found >= 0) return tellPause(found);
      const time = Math.floor((plot.posToVal(left, "x") - origin) / width);
      const length = Math.floor(Math.log10(plot.posToVal(top, "y") / lowest) * perDecade);
      const there = chart.cells.map(([number, flat]) => {
        let count = 0;
        for (let at = 0; at < flat.length; at += 3) if (flat[at] === time && flat[at + 1] === length) count += flat[at + 2];
        return [number, series[number].hidden ? 0 : count];
      }).filter(([, count]) => count);
      if (!there.length) return tellNothing();
      const names = there.map(([at, count]) => `${number(count)} ${reasons[at].name}`).join(", ");
      moment.textContent = `${utc(origin + time * width)} and ${duration(width * 1e6)} from then on: ${names}, ${chart.axis} ` +
        `${duration(bottom(length))} to ${duration(bottom(length + 1))}`;
    }

    function paint(plot, chart) {
      const {ctx, bbox} = plot;
      const x = (value) => plot.valToPos(value, "x", true), y = (value) => plot.valToPos(value, "y", true);
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      ctx.fillStyle = "#c8443a33";
      for (const {from, to} of open) ctx.fillRect(x(from), bbox.top, Math.max(2, x(to) - x(from)), bbox.height);
      const highest = chart.cells.reduce((most, [, flat]) => flat.reduce((most, count, at) => at % 3 === 2 ?
        Math.max(most, count) : most, most), 1);
      for (const [number, flat] of chart.cells) {
        if (series[number].hidden) continue;
        ctx.fillStyle = reasons[number].colour;
        for (let at = 0; at < flat.length; at += 3) {
          const [left, right] = [x(origin + flat[at] * width), x(origin + (flat[at] + 1) * width)].map(Math.round);
          const [low, high] = [y(bottom(flat[at + 1])), y(bottom(flat[at + 1] + 1))].map(Math.round);
          ctx.globalAlpha = 0.12 + 0.68 * Math.log1p(flat[at + 2]) / Math.log1p(highest);
          ctx.fillRect(left, high, Math.max(1, right - left), Math.max(1, low - high));
        }
      }
      ctx.restore();
    }

    function mark(plot) {
      const {ctx, bbox} = plot;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = scheme("ink");
      ctx.lineWidth = devicePixelRatio;
      ctx.font = `${11 * devicePixelRatio}px ${style.fontFamily}`;
      [ctx.textAlign, ctx.textBaseline] = ["left", "middle"];
      for (const [name, length] of lines) {
        const y = plot.valToPos(height(length, total), "y", true);
        ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
        ctx.globalAlpha = 0.5;
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
        ctx.globalAlpha = 1;
        ctx.fillText(name, bbox.left + bbox.width + 4 * devicePixelRatio, y);
      }
      ctx.restore();
    }

    charts.forEach((chart, number) => {
      place.append(element("p", {className: "axis", textContent: PART[chart.axis] ?? chart.axis}));
      const drawn = () => [times, ...series.map((each, one) => times.map((_, at) =>
        each.hidden || reason[at] !== one || chart.values[at] === null ? null : height(chart.values[at], chart)))];
      const labelled = number === charts.length - 1;
      const plot = new uPlot({
        width: place.clientWidth, height: (number ? 130 : 300) + (labelled ? 24 : 0), ms: 1, padding: [8, 44, 0, 0],
        legend: {show: false},
        cursor: {y: false, points: {show: false}, drag: {x: true, y: false}, sync: {key}},
        scales: {
          x: {time: true, range: (_, from, to) => from === times[0] && to === times.at(-1) ? whole : [from, to]},
          y: {distr: 3, range: () => chart.range},
        },
        axes: [axisOfTime(labelled), axisOfLogs],
        series: [{}, ...series.map(({colour}) => ({paths: () => null, points: {
          show: true, size: number || crowded ? 5 : 6, width: crowded ? 0 : 0.5,
          fill: crowded ? `${colour}d0` : colour, stroke: () => scheme("ground"),
        }}))],
        hooks: {
          drawAxes: [(plot) => paint(plot, chart)],
          draw: [(plot) => { if (!number) mark(plot); }],
          setCursor: [(plot) => {
            if (plot.cursor.left < 0) tellNothing();
            else if (plot.over.matches(":hover")) pointed(plot, chart);
          }],
        },
      }, drawn(), place);
      plot.ring = element("div", {className: "ring", hidden: true});
      plot.over.append(plot.ring);
      plot.renew = () => {
        const {min, max} = plot.scales.x;
        plot.setData(drawn());
        plot.setScale("x", {min, max});
      };
      own.push(plot);
    });
    place.plots = own;
    plots.push(...own);
    tellNothing();
  }

  // Rows of numbers from the least to the largest, on one logarithmic axis.
  function ranges(place, {rows, heads}) {
    const all = rows.flatMap(({values}) => values.filter((value) => value > 0));
    const [from, to] = around(Math.min(...all, 1e9), Math.max(...all, 10));
    const share = (value) => 100 * Math.log10(Math.max(value, from) / from) / Math.log10(to / from);
    const count = Math.round(Math.log10(to / from));
    const chart = element("div", {className: "bars ranges"});
    let before = "";
    for (const {name, part, colour, values} of rows) {
      if (part && name !== before) chart.append(element("div", {className: "group", textContent: name}));
      before = name;
      const track = element("div", {className: "track"});
      track.style.backgroundSize = `${100 / count}% 100%`;
      const told = heads.map((head, at) => `${head} ${duration(values[at])}`).join(", ");
      track.title = `${[name, part].filter(Boolean).join(", ")}: ${told}`;
      const piece = (className, one, other) => {
        const made = element("div", {className});
        made.style.left = `${share(values[one])}%`;
        made.style.width = `${share(values[other]) - share(values[one])}%`;
        made.style.background = colour;
        track.append(made);
        return made;
      };
      const last = values.length - 1;
      piece("whisker", 0, last).append(element("output", {textContent: duration(values[last])}));
      piece("box", 1, heads.indexOf("p99"));
      for (const head of ["p90", "p99.9"]) piece("tick", heads.indexOf(head), heads.indexOf(head)).style.width = "";
      chart.append(element("div", {className: part ? "part" : "", textContent: part || name}), track);
    }
    const labels = Array.from({length: count + 1}, (_, at) => {
      const label = element("span", {textContent: tick(from * 10 ** at, " ns")});
      label.style.left = `${100 * at / count}%`;
      return label;
    });
    chart.append(element("div", {className: "ticks"}, ...labels));
    place.append(chart);
  }

  // A script before this one may have more kinds.
  const KINDS = {pauses, ranges, ...globalThis.gotraceFigures};
  const tools = {element, duration, number, legend, around, plots, scheme, AXIS, axisOfLogs};
  document.querySelectorAll(".figure").forEach((place, at) => {
    if (figures[at].kind) KINDS[figures[at].kind](place, figures[at], `figure ${at}`, tools);
    else if (figures[at].times) overTime(place, figures[at], `figure ${at}`);
    else bars(place, figures[at]);
  });
  addEventListener("resize", () => plots.forEach((plot) => {
    plot.setSize({width: plot.root.parentElement.clientWidth, height: plot.height});
  }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plots.forEach((plot) => plot.redraw(false)));
})();
