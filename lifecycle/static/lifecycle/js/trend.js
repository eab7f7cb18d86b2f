// Draws the columns with `data-line` of a table as lines over its days. Without it, the table says the same.
const box = document.getElementById("trend");
const table = box && document.getElementById(box.dataset.table);

function read(table) {
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...table.tBodies[0].rows].reverse(); // the table has the newest day first
  const days = rows.map((row) => Date.parse(row.querySelector("time").dateTime) / 1000);
  const lines = heads.flatMap((head, index) => (head.dataset.line ? [{ head, index }] : []));
  return { lines, data: [days, ...lines.map(({ index }) => rows.map((row) => Number(row.cells[index].textContent)))] };
}

function draw() {
  const { lines, data } = read(table);
  // A probe, because light-dark() in a custom property is only resolved where it is used.
  const colour = (name) => {
    box.style.color = `var(${name})`;
    const found = getComputedStyle(box).color;
    box.style.color = "";
    return found;
  };
  const [text, line] = [colour("--text"), colour("--line")];
  const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  const size = () => ({ width: Math.max(box.clientWidth, 200), height: 280 });
  box.replaceChildren();
  return new window.uPlot(
    {
      ...size(),
      tzDate: (seconds) => window.uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { y: { range: (_, low, high) => [0, Math.max(high, 1)] } },
      axes: [{ ...axis, values: "{D} {MMM}" }, axis],
      series: [
        { value: (_, seconds) => (seconds == null ? "" : new Date(seconds * 1000).toISOString().slice(0, 10)) },
        ...lines.map(({ head }) => ({
          label: head.textContent,
          stroke: colour(head.dataset.line),
          width: 2,
          dash: "dashed" in head.dataset ? [6, 4] : undefined,
          points: { show: data[0].length < 3 },
        })),
      ],
    },
    data,
    box,
  );
}

if (table && window.uPlot) {
  let plot = draw();
  new ResizeObserver(() => plot.setSize({ width: Math.max(box.clientWidth, 200), height: 280 })).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    plot.destroy();
    plot = draw();
  });
}
