// Numbers, and names, as the page shows them.
"use strict";
const shown = (() => {
  const sorted = (values) => Float64Array.from(values).sort();
  function quantile(ordered, q) {
    const at = (ordered.length - 1) * q;
    const low = Math.floor(at);
    return ordered[low] + (at - low) * (ordered[Math.min(low + 1, ordered.length - 1)] - ordered[low]);
  }
  const REDUCE = {
    median: (values) => quantile(sorted(values), 0.5),
    min: (values) => values.reduce((a, b) => Math.min(a, b)),
    max: (values) => values.reduce((a, b) => Math.max(a, b)),
    mean: (values) => values.reduce((a, b) => a + b) / values.length,
  };
  function show(value) {
    if (value === null || value === undefined) return "—";
    if (typeof value !== "number") return value;
    const size = Math.abs(value);
    const text = size !== 0 && (size < 1e-4 || size >= 1e9) ? value.toExponential(3) : String(Number(value.toPrecision(4)));
    return text.replace("-", "−");
  }
  // Equal decimals for all numbers of a column: the upper quartile has four significant digits, the smallest has one.
  function formatter(values) {
    const sizes = sorted(values.filter((value) => typeof value === "number" && value !== 0).map(Math.abs));
    const needed = 3 - Math.floor(Math.log10(sizes[Math.ceil(0.75 * (sizes.length - 1))]));
    const wanted = -Math.floor(Math.log10(sizes[0]));
    if (!sizes.length || wanted > needed + 2 || needed > 8 || needed < -5) return show;
    const digits = Math.max(0, needed, wanted);
    const { format } = new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    return (value) => (typeof value === "number" ? format(value).replace("-", "−") : "—");
  }
  const escape = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const brief = (text, length) => escape(text.length > length ? text.slice(0, length - 1) + "…" : text);
  function wrapped(text, width) {
    const lines = [""];
    for (const word of text.split(" ")) {
      if (lines.at(-1) && lines.at(-1).length + word.length >= width) lines.push("");
      lines[lines.length - 1] += (lines.at(-1) && " ") + word;
    }
    return lines.slice(0, 3).map((line) => brief(line, width + 6)).join("<br>");
  }
  return { sorted, quantile, REDUCE, formatter, brief, wrapped };
})();
