// Percentile curves of any groups of a fleet. Buckets are summed here, so that every choice has percentiles of its own
// values, and none is averaged. What was chosen stands behind the # of the address: whoever gets it sees the same.
"use strict";
globalThis.gotraceFigures = {fleet(place, figure, key, {element, duration, number, legend, around, plots, AXIS, axisOfLogs}) {
  const {cells, percents, colours, bys, texts} = figure;
  const ALL = "";
  const FILTERS = ["vendor", "type", "service", "version"];
  const least = (percent) => Math.ceil(Math.log(0.025) / Math.log(percent / 100) - 1e-9);
  const metrics = [...new Set(cells.map(({metric}) => metric))].sort();
  const valuesOf = (name) => [...new Set(cells.map((cell) => cell[name]))].sort();
  const choices = {metric: metrics, by: bys, ...Object.fromEntries(FILTERS.map((name) => [name, [ALL, ...valuesOf(name)]]))};
  const initial = {
    metric: metrics.includes(figure.metric) ? figure.metric : metrics[0], by: figure.by,
    ...Object.fromEntries(FILTERS.map((name) => [name, ALL])),
  };

  const selects = {};
  const form = element("form", {className: "filters"});
  for (const [name, values] of Object.entries(choices)) {
    selects[name] = element("select", {name}, ...values.map((value) =>
      element("option", {value, textContent: value === ALL ? `every ${name}` : value})));
    selects[name].addEventListener("change", () => { told(); drawn(); });
    form.append(element("label", {}, texts[name], selects[name]));
  }
  form.addEventListener("submit", (event) => event.preventDefault());

  function asked() {
    const parameters = new URLSearchParams(location.hash.slice(1));
    for (const [name, select] of Object.entries(selects)) {
      const value = parameters.get(name);
      select.value = choices[name].includes(value) ? value : initial[name];
    }
  }
  function told() {
    const parameters = new URLSearchParams();
    for (const [name, {value}] of Object.entries(selects)) if (value !== initial[name]) parameters.set(name, value);
    history.replaceState(null, "", "#" + parameters);
  }

  function grouped() {
    const groups = new Map();
    for (const cell of cells) {
      if (cell.metric !== selects.metric.value) continue;
      if (FILTERS.some((name) => selects[name].value !== ALL && cell[name] !== selects[name].value)) continue;
      const name = cell[selects.by.value] + (cell.emulated ? " (emulated)" : "");
      if (!groups.has(name)) groups.set(name, {name, hosts: new Set(), counts: new Map(), zeros: 0, worst: [], known: true});
      const group = groups.get(name);
      cell.hosts.forEach((host) => group.hosts.add(host));
      cell.buckets.forEach((bucket, at) => group.counts.set(bucket, (group.counts.get(bucket) ?? 0) + cell.counts[at]));
      group.zeros += cell.zeros;
      group.worst.push(...cell.worst);
      group.known &&= cell.known;
    }
    return [...groups.values()].map((group) => {
      group.filled = [...group.counts].sort(([one], [other]) => one - other);
      group.total = group.filled.reduce((sum, [, count]) => sum + count, group.zeros);
      group.worst = group.known ? group.worst.sort((one, other) => other - one).slice(0, 16) : [];
      return group;
    }).sort((one, other) => one.name < other.name ? -1 : 1);
  }
  // [ns, whether it is exact]; null with too few values. As gotrace.fleet.percentiles.values_at has it.
  function percentile({filled, total, zeros, worst}, percent) {
    if (total < least(percent)) return null;
    const rank = Math.max(1, Math.ceil(Number((percent / 100 * total).toFixed(6))));
    if (total - rank < worst.length) return [worst[total - rank], true];
    if (rank <= zeros) return [0, true];
    let sum = zeros;
    for (const [bucket, count] of filled) if ((sum += count) >= rank) return [2 ** ((bucket - 0.5) / 32) * 1e9, false];
    return null;
  }

  const chart = element("div");
  const status = element("p", {className: "moment", role: "status"});
  const table = element("table");
  const wide = element("div", {className: "wide", tabIndex: 0}, table);
  wide.setAttribute("role", "region");
  wide.setAttribute("aria-label", "Percentiles of what was chosen");
  place.append(form, chart, status, wide);

  const nines = (percent) => -Math.log10(1 - percent / 100);
  const STEPS = 74;
  const xs = Array.from({length: STEPS + 1}, (_, at) => nines(50) + at / STEPS * (nines(99.99) - nines(50)));
  const text = (found) => found === null ? "-" : (found[1] ? "" : "~") + duration(found[0]);

  function drawn() {
    const groups = grouped();
    const curves = groups.slice(0, colours.length);
    chart.replaceChildren();
    plots.splice(0, plots.length, ...plots.filter((plot) => plot.root.isConnected));
    const series = curves.map((group, at) => ({
      name: group.name.length > 24 ? `${group.name.slice(0, 22)}..` : group.name, colour: colours[at], style: "line",
      values: xs.map((x) => {
        const found = percentile(group, 100 * (1 - 10 ** -x));
        return found === null || !found[0] ? null : found[0];
      }),
    }));
    const all = series.flatMap(({values}) => values.filter((value) => value !== null));
    if (all.length) {
      const shown = () => [xs, ...series.map((each) => each.hidden ? xs.map(() => null) : each.values)];
      const {list, tell} = legend(series, () => plot.setData(shown()));
      const tellAt = (at) => tell(series.map(({values}) => values[at] === null ? "-" : duration(values[at])));
      const axis = element("p", {className: "axis", textContent: `${selects.metric.value} at each percentile`});
      chart.append(list, axis);
      const range = around(all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b)));
      const plot = new uPlot({
        width: place.clientWidth, height: 320, padding: [8, 30, 0, 0], legend: {show: false},
        cursor: {y: false, points: {show: false}, drag: {x: true, y: false}},
        scales: {x: {time: false, range: (_, from, to) => [from, to]}, y: {distr: 3, range: () => range}},
        axes: [
          {...AXIS, size: 28, splits: () => percents.map(nines), values: () => percents.map((each) => `p${each}`)},
          axisOfLogs,
        ],
        series: [{}, ...series.map(({colour}) => ({stroke: colour, width: 2, points: {show: false}}))],
        hooks: {setCursor: [(plot) => tellAt(plot.cursor.idx ?? STEPS)]},
      }, shown(), chart);
      tellAt(STEPS);
      plots.push(plot);
    }
    const left = groups.length - curves.length;
    status.textContent = (groups.length ? `${number(groups.length)} groups.` : "Nothing was measured of that.") +
      (left > 0 ? ` The first ${curves.length} are drawn.` : "") + (groups.length && !all.length ? " Too few values." : "");
    const row = (tag, words) => element("tr", {}, ...words.map((word, at) =>
      element(at ? tag : "th", {textContent: word, className: at ? "" : "words short"})));
    table.replaceChildren(
      row("th", [texts[selects.by.value] ?? selects.by.value, ...percents.map((each) => `p${each}`), "hosts", "values"]),
      ...groups.map((group) => row("td", [
        group.name, ...percents.map((each) => text(percentile(group, each))), number(group.hosts.size), number(group.total),
      ])));
  }

  addEventListener("hashchange", () => { asked(); drawn(); });
  asked();
  drawn();
}};
