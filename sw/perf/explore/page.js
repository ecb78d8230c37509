"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const place = Object.fromEntries(data.columns.map((name, index) => [name, index]));
  const value = (row, name) => row[place[name]];
  const workloads = [...new Set(data.rows.map(key))];
  const numeric = data.columns.filter(
    (name) => data.rows.some((row) => typeof value(row, name) === "number"));
  const kinds = data.columns.filter(
    (name) => !(name in data.objectives) && new Set(data.rows.map((row) => value(row, name))).size <= 24);
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555", "#e69f00", "#56b4e9", "#000000"];
  const SHAPES = ["circle", "square", "up", "diamond", "down", "plus", "cross", "bar"];
  const MARGIN = { left: 70, right: 15, top: 15, bottom: 45 };
  const canvas = document.getElementById("points");
  const tip = document.getElementById("tip");
  const state = { sort: null, down: true, marked: null, shown: [] };

  function key(row) {
    return data.workload.map((name) => value(row, name)).join(", ");
  }

  // -- controls --------------------------------------------------------------------------------------

  const form = document.getElementById("controls");
  const element = (tag, more = {}) => Object.assign(document.createElement(tag), more);

  function choice(title, options, chosen, text = String) {
    const label = element("label", { textContent: title });
    const select = element("select");
    for (const option of options) {
      select.append(element("option", { value: option, textContent: text(option), selected: option === chosen }));
    }
    label.append(select);
    form.append(label);
    return select;
  }

  function tick(title, checked, parent = form) {
    const label = element("label", { className: "flat" });
    const box = element("input", { type: "checkbox", checked });
    label.append(box, title);
    parent.append(label);
    return box;
  }

  const described = (words) => data.workload.map((name, index) => {
    const own = words.split(", ")[index];
    return name === "kv" ? `${own} tokens` : name === "batch" ? `batch ${own}` : own;
  }).join(", ");
  const chosen = data.chosen;
  const best = workloads.find((words) => / 40000, 1$/.test(words)) || workloads[0];
  const workload = choice("workload", workloads, best, described);
  const xAxis = choice("across", numeric, chosen[chosen.length - 1] || numeric[0]);
  const yAxis = choice("up", numeric, chosen[0] || numeric[0]);
  const mark = choice("marks by", kinds, kinds.includes("method") ? "method" : kinds[0]);
  const logX = tick("logarithmic across", true);
  const logY = tick("logarithmic up", false);
  const alone = tick("front alone", false);
  const group = element("fieldset");
  group.append(element("legend", { textContent: "front of" }));
  const objectives = Object.keys(data.objectives).map((name) => [name, tick(name, chosen.includes(name), group)]);
  form.append(group);

  // -- fronts ----------------------------------------------------------------------------------------

  function front(rows, names) {
    const scored = rows
      .filter((row) => value(row, "fits") !== false && names.every((name) => value(row, name) !== null))
      .map((row) => ({ row, by: names.map((name) => value(row, name) * (data.objectives[name] === "max" ? -1 : 1)) }))
      .sort((one, other) => {
        for (let index = 0; index < names.length; index += 1) {
          if (one.by[index] !== other.by[index]) return one.by[index] - other.by[index];
        }
        return 0;
      });
    const kept = [];
    for (const mine of scored) {
      const beaten = kept.some((found) => found.by.every((own, index) => own <= mine.by[index])
        && found.by.some((own, index) => own < mine.by[index]));
      if (!beaten) kept.push(mine);
    }
    return new Set(names.length ? kept.map((found) => found.row) : []);
  }

  // -- the plot --------------------------------------------------------------------------------------

  function number(found) {
    if (typeof found !== "number") return found === null ? "–" : String(found);
    return Math.abs(found) >= 1e4 ? String(Math.round(found)) : String(Number(found.toPrecision(4)));
  }

  function scale(values, logarithmic, from, to) {
    let low = Math.min(...values), high = Math.max(...values);
    const log = logarithmic && low > 0;
    const at = log ? Math.log10 : (found) => found;
    if (low === high) { low = log ? low / 2 : low - 1; high = log ? high * 2 : high + 1; }
    const space = (at(high) - at(low)) * 0.04;
    const first = at(low) - space, last = at(high) + space;
    const map = (found) => from + ((at(found) - first) / (last - first)) * (to - from);
    const ticks = [];
    if (log) {
      const fine = last - first < 1.2 ? [1, 1.5, 2, 3, 4, 5, 6, 8] : last - first < 2.5 ? [1, 2, 5] : [1];
      for (let power = Math.floor(first); power <= last; power += 1) {
        for (const digit of fine) ticks.push(digit * 10 ** power);
      }
    } else {
      const raw = (last - first) / 6, power = 10 ** Math.floor(Math.log10(raw));
      const step = [1, 2, 5, 10].find((digit) => digit * power >= raw) * power;
      for (let found = Math.ceil(first / step) * step; found <= last; found += step) ticks.push(found);
    }
    return { map, ticks: ticks.filter((found) => at(found) >= first && at(found) <= last) };
  }

  function shape(pen, name, x, y, size) {
    pen.beginPath();
    if (name === "circle") pen.arc(x, y, size, 0, 2 * Math.PI);
    else if (name === "square") pen.rect(x - size, y - size, 2 * size, 2 * size);
    else if (name === "up" || name === "down") {
      const up = name === "up" ? -1 : 1;
      pen.moveTo(x, y + up * size * 1.2); pen.lineTo(x - size, y - up * size); pen.lineTo(x + size, y - up * size);
      pen.closePath();
    } else if (name === "diamond") {
      pen.moveTo(x, y - size * 1.3); pen.lineTo(x + size, y); pen.lineTo(x, y + size * 1.3); pen.lineTo(x - size, y);
      pen.closePath();
    } else if (name === "plus") {
      pen.moveTo(x - size, y); pen.lineTo(x + size, y); pen.moveTo(x, y - size); pen.lineTo(x, y + size);
    } else if (name === "cross") {
      pen.moveTo(x - size, y - size); pen.lineTo(x + size, y + size);
      pen.moveTo(x - size, y + size); pen.lineTo(x + size, y - size);
    } else pen.rect(x - size / 2, y - size * 1.2, size, size * 2.4);
  }

  function draw(pen, style, x, y, filled, size) {
    pen.strokeStyle = style.colour; pen.fillStyle = style.colour;
    pen.globalAlpha = filled ? 1 : 0.45; pen.lineWidth = filled ? 2 : 1;
    shape(pen, style.shape, x, y, size);
    if (filled) pen.fill();
    pen.stroke();
    pen.globalAlpha = 1;
  }

  function styles(names) {
    const all = [...new Set(data.rows.map((row) => value(row, mark.value)))];
    const found = new Map(all.map((name, index) => [name, {
      colour: COLOURS[index % COLOURS.length],
      shape: SHAPES[(index + Math.floor(index / COLOURS.length)) % SHAPES.length],
    }]));
    const legend = document.getElementById("legend");
    legend.replaceChildren(...all.filter((name) => names.has(name)).map((name) => {
      const item = element("li"), picture = element("canvas", { width: 28, height: 28 });
      const pen = picture.getContext("2d");
      pen.scale(2, 2);
      draw(pen, found.get(name), 7, 7, true, 4);
      item.append(picture, number(name));
      return item;
    }));
    return found;
  }

  function axes(pen, x, y, width, height) {
    pen.font = "12px system-ui, sans-serif"; pen.fillStyle = "#444"; pen.strokeStyle = "#ddd"; pen.lineWidth = 1;
    pen.textAlign = "center"; pen.textBaseline = "top";
    for (const found of x.ticks) {
      pen.beginPath(); pen.moveTo(x.map(found), MARGIN.top); pen.lineTo(x.map(found), height - MARGIN.bottom);
      pen.stroke(); pen.fillText(number(found), x.map(found), height - MARGIN.bottom + 6);
    }
    pen.textAlign = "right"; pen.textBaseline = "middle";
    for (const found of y.ticks) {
      pen.beginPath(); pen.moveTo(MARGIN.left, y.map(found)); pen.lineTo(width - MARGIN.right, y.map(found));
      pen.stroke(); pen.fillText(number(found), MARGIN.left - 6, y.map(found));
    }
    pen.fillStyle = "#222"; pen.textAlign = "center"; pen.textBaseline = "bottom";
    pen.fillText(xAxis.value, (MARGIN.left + width - MARGIN.right) / 2, height - 6);
    pen.save(); pen.translate(14, (MARGIN.top + height - MARGIN.bottom) / 2); pen.rotate(-Math.PI / 2);
    pen.textBaseline = "middle"; pen.fillText(yAxis.value, 0, 0); pen.restore();
  }

  function update() {
    const rows = data.rows.filter((row) => key(row) === workload.value);
    const names = objectives.filter(([, box]) => box.checked).map(([name]) => name);
    const best = front(rows, names);
    const shown = rows.filter((row) => (best.has(row) || !alone.checked)
      && typeof value(row, xAxis.value) === "number" && typeof value(row, yAxis.value) === "number");
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio; canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    state.shown = [];
    const style = styles(new Set(rows.map((row) => value(row, mark.value))));
    if (shown.length) {
      const x = scale(shown.map((row) => value(row, xAxis.value)), logX.checked, MARGIN.left, width - MARGIN.right);
      const y = scale(shown.map((row) => value(row, yAxis.value)), logY.checked, height - MARGIN.bottom, MARGIN.top);
      axes(pen, x, y, width, height);
      shown.sort((one, other) => best.has(one) - best.has(other));
      for (const row of shown) {
        const at = { row, x: x.map(value(row, xAxis.value)), y: y.map(value(row, yAxis.value)) };
        state.shown.push(at);
        draw(pen, style.get(value(row, mark.value)), at.x, at.y, best.has(row), best.has(row) ? 4.5 : 3);
        if (row === state.marked) {
          pen.strokeStyle = "#000"; pen.lineWidth = 2; shape(pen, "circle", at.x, at.y, 9); pen.stroke();
        }
      }
    } else {
      pen.font = "14px system-ui, sans-serif"; pen.fillText("no point has both figures", 20, 30);
    }
    document.getElementById("count").textContent = `${rows.length} points of this workload, ${shown.length} shown; `
      + `${best.size} on the front of ${names.join(", ") || "nothing"} (filled marks), listed below.`;
    table([...best], names);
  }

  // -- table and hints -------------------------------------------------------------------------------

  function differing(rows) {
    return data.columns.filter((name) => name !== "fits" && name !== "obstacle" && !data.workload.includes(name)
      && (name === "system" || name === "method" || name in data.objectives
        || new Set(rows.map((row) => value(row, name))).size > 1));
  }

  function table(rows, names) {
    const columns = [...names, ...differing(rows).filter((name) => !names.includes(name))];
    const by = columns.includes(state.sort) ? state.sort : columns[0];
    const order = (one, other) => {
      const a = value(one, by), b = value(other, by);
      const found = a === b ? 0 : a === null ? -1 : b === null ? 1 : a < b ? -1 : 1;
      return state.down ? -found : found;
    };
    const head = element("tr");
    for (const name of columns) {
      const cell = element("th", { textContent: name + (name === by ? (state.down ? " ↓" : " ↑") : "") });
      cell.onclick = () => { state.down = name === by ? !state.down : true; state.sort = name; update(); };
      head.append(cell);
    }
    const lines = rows.sort(order).slice(0, 200).map((row) => {
      const line = element("tr", { className: row === state.marked ? "marked" : "" });
      line.append(...columns.map((name) => element("td", { textContent: number(value(row, name)) })));
      line.onclick = () => { state.marked = row; update(); };
      return line;
    });
    document.getElementById("front").replaceChildren(head, ...lines);
  }

  function nearest(event) {
    const box = canvas.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    let found = null, least = 144;
    for (const at of state.shown) {
      const distance = (at.x - x) ** 2 + (at.y - y) ** 2;
      if (distance <= least) { least = distance; found = at; }
    }
    return found;
  }

  canvas.onmousemove = (event) => {
    const at = nearest(event);
    tip.hidden = !at;
    if (!at) return;
    const names = data.columns.filter((own) => value(at.row, own) !== null && !data.workload.includes(own));
    tip.replaceChildren(...names.map((name) => {
      const line = element("div");
      line.append(element("span", { textContent: name }), ` ${number(value(at.row, name))}`);
      return line;
    }));
    const right = at.x > canvas.clientWidth / 2;
    tip.style.left = right ? "" : `${at.x + 14}px`;
    tip.style.right = right ? `${canvas.clientWidth - at.x + 14}px` : "";
    tip.style.top = "8px";
  };
  canvas.onmouseleave = () => { tip.hidden = true; };
  canvas.onclick = (event) => { const at = nearest(event); state.marked = at && at.row; update(); };
  form.addEventListener("change", update);
  window.addEventListener("resize", update);
  update();
})();
