// What a million requests cost on each type of machine, against a percentile: a dot for each with its intervals, and the front
// of those that no other beats in both. What is lent (burstable) is a ring; what was cut, or measured too little, is faint.
"use strict";
globalThis.gotraceFigures = {...globalThis.gotraceFigures, costs(place, figure, key, tools) {
  const {element, duration, number, legend, plots, scheme, AXIS} = tools;
  const {points, metric, currency} = figure;
  const kinds = [
    {name: "none is cheaper and faster", colour: "#3b7dbd", style: "dot", of: ({front}) => front},
    {name: "another is cheaper and faster", colour: "#e5a02d", style: "dot", of: ({front, cut}) => !front && !cut},
    {name: "left out", colour: "#5a6577", style: "dot", of: ({cut}) => cut},
  ].filter(({of}) => points.some(of));
  const money = (value) => `${number(Number(value.toPrecision(3)))} ${currency}`;
  const within = ({low, high}, text) => low === null ? "" : ` (${text(low)} to ${text(high)})`;
  const told = (point) => `${point.name}${point.lent ? ", burstable" : ""}: ${money(point.cost.value)}` +
    `${within(point.cost, money)}, ${metric} ${duration(point.value.value)}${within(point.value, duration)}`;

  const moment = element("p", {className: "moment", role: "status", textContent: "Point at a dot."});
  const shown = () => [points.map(({cost}) => cost.value),
    ...kinds.map((kind) => points.map((point) => kind.of(point) && !kind.hidden ? point.value.value : null))];
  const {list, tell} = legend(kinds, () => plot.setData(shown(), false));
  tell(kinds.map(({of}) => number(points.filter(of).length)));
  place.append(moment, list, element("p", {className: "axis", textContent: `${metric} and the cost of a million requests`}));

  const most = (name) => 1.08 * Math.max(...points.map((point) => point[name].high ?? point[name].value));
  function paint(plot) {
    const {ctx, bbox} = plot, size = devicePixelRatio;
    const x = (value) => plot.valToPos(value, "x", true), y = (value) => plot.valToPos(value, "y", true);
    const line = (...ends) => {
      ctx.beginPath();
      ends.forEach(([one, other], at) => ctx[at ? "lineTo" : "moveTo"](x(one), y(other)));
      ctx.stroke();
    };
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.lineWidth = size;
    ctx.font = `${11 * size}px ${getComputedStyle(place).fontFamily}`;
    ctx.textBaseline = "bottom";
    for (const kind of kinds) if (!kind.hidden) for (const {name, cost, value, lent} of points.filter(kind.of)) {
      ctx.strokeStyle = kind.colour;
      if (cost.low !== null) line([cost.low, value.value], [cost.high, value.value]);
      if (value.low !== null) line([cost.value, value.low], [cost.value, value.high]);
      ctx.beginPath();
      ctx.arc(x(cost.value), y(value.value), 4 * size, 0, 2 * Math.PI);
      ctx.fillStyle = lent ? scheme("ground") : kind.colour;
      ctx.fill();
      ctx.stroke();
      ctx.fillStyle = scheme("ink");
      const left = x(cost.value) > bbox.left + 0.7 * bbox.width;
      ctx.textAlign = left ? "right" : "left";
      ctx.fillText(name + (lent ? " (burstable)" : ""), x(cost.value) + (left ? -7 : 7) * size, y(value.value) - 4 * size);
    }
    // Steps: between two types of the front there is nothing to be had.
    const front = points.filter((point) => point.front && !point.lent);
    ctx.strokeStyle = scheme("ink");
    ctx.setLineDash([4 * size, 4 * size]);
    if (!kinds[0].hidden && front.length > 1) line(...front.flatMap(({cost, value}, at) =>
      [...at ? [[cost.value, front[at - 1].value.value]] : [], [cost.value, value.value]]));
    ctx.restore();
  }
  function pointed(plot) {
    let found = null, distance = 30 ** 2;
    for (const kind of kinds) if (!kind.hidden) for (const point of points.filter(kind.of)) {
      const x = plot.valToPos(point.cost.value, "x") - plot.cursor.left;
      const y = plot.valToPos(point.value.value, "y") - plot.cursor.top;
      if (x * x + y * y < distance) [found, distance] = [point, x * x + y * y];
    }
    moment.textContent = found ? told(found) : "Point at a dot.";
  }
  const plot = new uPlot({
    width: place.clientWidth, height: 320, padding: [12, 30, 0, 0], legend: {show: false},
    cursor: {x: false, y: false, points: {show: false}, drag: {x: false, y: false}},
    scales: {x: {time: false, range: () => [0, most("cost")]}, y: {range: () => [0, most("value")]}},
    axes: [
      {...AXIS, size: 28, space: 90, values: (_, splits) => splits.map(money)},
      {...AXIS, size: 62, values: (_, splits) => splits.map((each) => each ? duration(each) : "0")},
    ],
    series: [{}, ...kinds.map(() => ({paths: () => null, points: {show: false}}))],
    hooks: {draw: [paint], setCursor: [pointed]},
  }, shown(), place);
  place.plots = [plot];  // for inspection from a console
  plots.push(plot);
}};
