// The view of all runs: one set of levels per factor decides which runs count; figures and table follow.
// After format.js, which makes `shown`.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const { y, factors } = data;
  const total = y.length;
  const PAGE_ROWS = 50;
  const BINS = 40;
  const WORDS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333", "#8C6D31"];
  const LIGHT = [[0, "#6baed6"], [0.5, "#c6dbef"], [1, "#fff7e6"]]; // dark text can be read on all of it; blue is better
  const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [170, 220, 50]];

  // ---- which runs count
  const chosen = factors.map((factor) => factor.levels.map(() => true));
  let selected = [];

  function select() {
    selected = [];
    for (let run = 0; run < total; run++) {
      let kept = true;
      for (let f = 0; kept && f < factors.length; f++) kept = chosen[f][factors[f].codes[run]];
      if (kept) selected.push(run);
    }
  }

  const { sorted, quantile, REDUCE, formatter, brief, wrapped } = shown;
  const written = formatter(y);

  function colour(factor, level) {
    if (!factor.ordered && factor.levels.length <= WORDS.length) return WORDS[level];
    const at = (level / Math.max(1, factor.levels.length - 1)) * (VIRIDIS.length - 1);
    const low = Math.min(Math.floor(at), VIRIDIS.length - 2);
    const mix = VIRIDIS[low].map((from, i) => Math.round(from + (at - low) * (VIRIDIS[low + 1][i] - from)));
    return `rgb(${mix.join(",")})`;
  }

  // ---- figures
  const FONT = { family: "system-ui, DejaVu Sans, sans-serif", size: 12, color: "#1b1b1b" };
  const OPTIONS = { displayModeBar: "hover", displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const layout = (title, x, yTitle) => ({
    title: { text: title, font: { size: 14 }, x: 0, xanchor: "left", xref: "paper" },
    font: FONT, margin: { l: 70, r: 10, t: 40, b: 60 }, xaxis: { ...x, automargin: true },
    yaxis: { title: { text: yTitle }, automargin: true, exponentformat: "power" },
    legend: { font: { size: 11 } }, hoverlabel: { namelength: -1 },
  });
  const metric = brief(data.metric, 44);
  const axisOf = (factor, levels) => ({
    title: { text: brief(factor.label, 44) }, type: "category", categoryorder: "array",
    tickvals: levels, ticktext: levels.map((l) => brief(factor.levels[l], 18)), categoryarray: levels,
  });

  function cells(xFactor, lineFactor) {
    const groups = new Map();
    for (const run of selected) {
      const key = xFactor.codes[run] + "," + (lineFactor ? lineFactor.codes[run] : 0);
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(y[run]);
    }
    return groups;
  }

  function draw() {
    const x = factors[byId("x").value];
    const lines = byId("lines").value === "" ? null : factors[byId("lines").value];
    const name = byId("reduction").value;
    const reduce = REDUCE[name];
    const used = (factor) => factor.levels.map((_, l) => l).filter((l) => chosen[factors.indexOf(factor)][l]);
    const groups = cells(x, lines);
    const lineLevels = lines ? used(lines) : [0];
    const xLevels = used(x);
    const value = (a, b) => { const found = groups.get(a + "," + b); return found ? reduce(found) : null; };
    const count = (a, b) => (groups.get(a + "," + b) || []).length;

    Plotly.react("effect", lineLevels.map((b) => ({
      type: "scatter", mode: "lines+markers", name: lines ? brief(lines.levels[b], 24) : "all", x: xLevels,
      y: xLevels.map((a) => value(a, b)), customdata: xLevels.map((a) => count(a, b)),
      hovertemplate: "%{y:.4g}, n %{customdata}", line: { color: lines ? colour(lines, b) : WORDS[0] },
    })), { ...layout(name, axisOf(x, xLevels), wrapped(data.metric, 34)), showlegend: !!lines,
      legend: { title: { text: lines ? brief(lines.label, 30) : "" }, font: { size: 11 } } }, OPTIONS);

    const all = sorted(selected.map((run) => y[run]));
    const low = all.length ? quantile(all, 0.005) : 0;
    const high = all.length ? quantile(all, 0.995) : 1;
    const width = (high - low) / BINS || 1;
    const centres = Array.from({ length: BINS }, (_, i) => low + (i + 0.5) * width);
    const heights = new Map(lineLevels.map((b) => [b, new Float64Array(BINS)]));
    const sizes = new Map(lineLevels.map((b) => [b, 0]));
    for (const run of selected) {
      const b = lines ? lines.codes[run] : 0;
      sizes.set(b, sizes.get(b) + 1);
      const bin = y[run] === high ? BINS - 1 : Math.floor((y[run] - low) / width);
      if (bin >= 0 && bin < BINS) heights.get(b)[bin]++;
    }
    Plotly.react("spread", lineLevels.filter((b) => sizes.get(b)).map((b) => ({
      type: "scatter", mode: "lines", line: { shape: "hvh", width: 1.5, color: lines ? colour(lines, b) : WORDS[0] },
      fill: lineLevels.length > 3 ? "none" : "tozeroy", name: (lines ? brief(lines.levels[b], 24) : "all") + ` (n ${sizes.get(b)})`,
      x: centres, y: Array.from(heights.get(b), (h) => (100 * h) / sizes.get(b)), hovertemplate: "%{y:.1f} %",
    })), { ...layout("distribution", { title: { text: metric } }, "runs (%)"), showlegend: true,
      legend: { font: { size: 11 } } }, OPTIONS);

    const matrix = byId("matrix");
    matrix.style.display = lines ? "" : "none";
    if (lines) {
      const z = lineLevels.map((b) => xLevels.map((a) => value(a, b)));
      const text = formatter(z.flat());
      Plotly.react("matrix", [{
        type: "heatmap", x: xLevels, y: lineLevels, z,
        text: z.map((row) => row.map(text)), texttemplate: "%{text}", textfont: { color: FONT.color },
        customdata: lineLevels.map((b) => xLevels.map((a) => count(a, b))),
        hovertemplate: "%{z:.4g}, n %{customdata}<extra></extra>", colorscale: LIGHT, reversescale: !data.lower, showscale: false,
      }], { ...layout(name, axisOf(x, xLevels), ""), yaxis: { ...axisOf(lines, lineLevels), autorange: "reversed", automargin: true } }, OPTIONS);
    }
    const best = all.length ? `; median ${written(quantile(all, 0.5))}, best ${written(data.lower ? all[0] : all[all.length - 1])}` : "";
    byId("state").textContent = selected.length
      ? `${selected.length.toLocaleString("en")} of ${total.toLocaleString("en")} runs${best}`
      : "no run is left: choose at least one level of every factor";
  }

  // ---- table
  const columns = factors.map((factor) => ({
    label: factor.label, text: (run) => factor.levels[factor.codes[run]], key: (run) => factor.codes[run],
  }));
  if (data.replicate) columns.push(textColumn(data.replicateLabel, data.replicate));
  columns.push({ label: data.metric, number: true, text: (run) => written(y[run]), key: (run) => y[run] });
  for (const { label, values } of data.columns) {
    const text = formatter(values);
    columns.push({ label, number: true, text: (run) => text(values[run]), key: (run) => (values[run] === null ? Infinity : values[run]) });
  }
  if (data.run) columns.push(textColumn("run", data.run));
  let order = { column: columns.findIndex((c) => c.label === data.metric), down: !data.lower };
  let rows = [];
  let page = 0;
  let words = null; // of each run, once there is something to search for

  function textColumn(label, values) {
    const numeric = values.every((value) => value !== "" && isFinite(value));
    return { label, text: (run) => values[run], key: numeric ? (run) => Number(values[run]) : (run) => values[run] };
  }

  function arrange() {
    const wanted = byId("search").value.trim().toLowerCase();
    if (wanted !== "") words ??= y.map((_, run) => columns.map((c) => c.text(run)).join("\n").toLowerCase());
    rows = wanted === "" ? selected.slice() : selected.filter((run) => words[run].includes(wanted));
    const key = columns[order.column].key;
    const sign = order.down ? -1 : 1;
    rows.sort((a, b) => { const u = key(a), v = key(b); return u < v ? -sign : u > v ? sign : a - b; });
    page = 0;
    list();
  }

  function list() {
    const from = page * PAGE_ROWS;
    const body = document.createDocumentFragment();
    for (const run of rows.slice(from, from + PAGE_ROWS)) {
      const line = document.createElement("tr");
      for (const column of columns) {
        const cell = line.appendChild(document.createElement("td"));
        cell.textContent = column.text(run);
        if (column.number) cell.className = "number";
      }
      body.appendChild(line);
    }
    document.querySelector("#runs tbody").replaceChildren(body);
    const last = Math.min(from + PAGE_ROWS, rows.length);
    byId("page").textContent = rows.length ? `${from + 1}–${last} of ${rows.length.toLocaleString("en")}` : "none";
    byId("previous").disabled = page === 0;
    byId("next").disabled = last >= rows.length;
    document.querySelectorAll("#runs th").forEach((head, i) =>
      head.setAttribute("aria-sort", i !== order.column ? "none" : order.down ? "descending" : "ascending"));
  }

  // ---- controls
  function update() { select(); draw(); arrange(); }

  function control(tag, text, parent, click) {
    const element = parent.appendChild(document.createElement(tag));
    element.textContent = text;
    if (click) { element.type = "button"; element.addEventListener("click", click); }
    return element;
  }

  factors.forEach((factor, f) => {
    const set = byId("filters").appendChild(document.createElement("fieldset"));
    const legend = control("legend", factor.label + " ", set);
    const boxes = [];
    const all = (on) => () => { boxes.forEach((box, l) => { box.checked = chosen[f][l] = on; }); update(); };
    control("button", "all", legend, all(true));
    control("button", "none", legend, all(false));
    const levels = set.appendChild(document.createElement("div"));
    levels.className = "levels";
    factor.levels.forEach((level, l) => {
      const label = levels.appendChild(document.createElement("label"));
      const box = label.appendChild(document.createElement("input"));
      box.type = "checkbox";
      box.checked = true;
      box.addEventListener("change", () => { chosen[f][l] = box.checked; update(); });
      label.append(" " + level);
      label.title = level;
      boxes.push(box);
    });
    control("option", factor.label, byId("x")).value = f;
    control("option", factor.label, byId("lines")).value = f;
  });
  control("option", "nothing", byId("lines")).value = "";
  columns.forEach((column, i) => {
    const head = document.querySelector("#runs thead tr").appendChild(document.createElement("th"));
    head.scope = "col";
    if (column.number) head.className = "number";
    control("button", column.label, head, () => {
      order = { column: i, down: order.column === i && !order.down };
      arrange();
    });
  });
  if (!factors.length) { byId("filters").remove(); byId("choices").remove(); byId("plots").remove(); }
  if (factors.length) {
    byId("x").value = data.first[0];
    byId("lines").value = factors.length > 1 ? data.first[1] : "";
  }
  for (const id of ["x", "lines", "reduction"]) byId(id)?.addEventListener("change", draw);
  byId("reset")?.addEventListener("click", () => {
    chosen.forEach((levels) => levels.fill(true));
    document.querySelectorAll("#filters input").forEach((box) => { box.checked = true; });
    byId("search").value = "";
    update();
  });
  byId("search").addEventListener("input", arrange);
  byId("previous").addEventListener("click", () => { page--; list(); });
  byId("next").addEventListener("click", () => { page++; list(); });
  if (!factors.length) { draw = () => {}; }
  update();
})();
