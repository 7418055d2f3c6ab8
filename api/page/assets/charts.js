// The two charts, and the same in words and as a table.

import { count, element, ms, rate, roles, uptime } from './words.js';

/* global uPlot */

const kept = 180; // seconds
const leastShown = 60; // seconds, though there may be fewer yet
const tabled = 10;
const height = 230;
const latencyRoles = roles.filter((role) => role.id !== 'none');

const rateSeries = [
  { id: 'requests', name: 'requests', colour: '--requests' },
  { id: 'queries', name: 'queries', colour: '--queries', dash: [6, 3] },
  { id: 'prevented', name: 'queries prevented', colour: '--prevented' },
];

// colour is one of the style sheet's, as a canvas understands it: for light or
// dark.
const probe = document.createElement('span');
probe.hidden = true;
document.body.append(probe);

function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function axis(values, size) {
  return {
    stroke: () => colour('--soft'),
    font: '12px system-ui, sans-serif',
    grid: { stroke: () => colour('--grid'), width: 1 },
    ticks: { show: false },
    gap: 6,
    size,
    values,
  };
}

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });

// alone are the values that no line leads to.
function alone(plot, series) {
  const values = plot.data[series];
  return values.flatMap((v, i) => (v != null && values[i - 1] == null && values[i + 1] == null ? [i] : []));
}

// Chart is a uPlot with lines of its own colours that fits its element.
class Chart {
  #plot;
  #element;

  constructor(target, series, scale, values) {
    this.#element = target;
    this.#plot = new uPlot(
      {
        width: target.clientWidth,
        height,
        padding: [10, 26, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { x: { time: true, range: (_, min, max) => (max == null ? [0, 1] : [max - Math.max(leastShown, max - min), max]) }, y: scale },
        axes: [
          { ...axis((_, splits) => splits.map((t) => clock.format(t * 1000)), 28), space: 80 },
          axis((_, splits) => splits.map((v) => (v == null ? '' : values(v))), 64),
        ],
        series: [
          {},
          ...series.map((s) => ({
            label: s.name,
            stroke: () => colour(s.colour),
            fill: s.fill ? () => colour(s.fill) : undefined,
            width: 2,
            dash: s.dash,
            show: s.show ?? true,
            points: { show: s.points ?? false, size: 6, fill: () => colour(s.colour), filter: alone },
          })),
        ],
      },
      [[], ...series.map(() => [])],
      target,
    );
    new ResizeObserver(() => this.#plot.setSize({ width: target.clientWidth, height })).observe(target);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#plot.redraw(false));
  }

  draw(data) {
    this.#plot.setData(data);
  }

  show(index, visible) {
    if (this.#plot.series[index + 1].show !== visible) this.#plot.setSeries(index + 1, { show: visible });
  }

  get element() {
    return this.#element;
  }
}

// swatch is a short piece of a line, so that a legend needs no colours alone.
function swatch(id, dashed) {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  svg.setAttribute('viewBox', '0 0 24 8');
  svg.setAttribute('class', `swatch ${dashed ? 'dashed' : ''} of-${id}`);
  svg.setAttribute('aria-hidden', 'true');
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'line');
  for (const [name, value] of Object.entries({ x1: 1, y1: 4, x2: 23, y2: 4 })) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

// Charts keeps three minutes and shows them.
export class Charts {
  #points = [];
  #rates;
  #latency;
  #values = new Map(); // the legend's, by series

  constructor() {
    this.#rates = new Chart(
      document.querySelector('#rates-chart'),
      rateSeries,
      { range: (_, min, max) => [0, Math.max(4, (max ?? 0) * 1.15)] },
      rate,
    );
    this.#latency = new Chart(
      document.querySelector('#latency-chart'),
      latencyRoles.flatMap((role) => [
        { name: `${role.name} p50`, colour: `--${role.id}`, points: true, show: false },
        { name: `${role.name} p99`, colour: `--${role.id}`, points: true, dash: [4, 4], show: false },
      ]),
      { distr: 3, range: (_, min, max) => (min == null || max == null ? [1, 1000] : uPlot.rangeLog(min, max, 10, true)) },
      ms,
    );
    const legend = document.querySelector('#rates-legend');
    for (const s of rateSeries) {
      const value = element('b', {}, '–');
      this.#values.set(s.id, value);
      legend.append(element('li', {}, swatch(s.id, Boolean(s.dash)), `${s.name} `, value));
    }
  }

  add(point) {
    this.#points.push(point);
    this.#points = this.#points.slice(-kept);
    this.#drawRates(point);
    this.#drawLatency();
  }

  // points are what the charts show.
  get points() {
    return this.#points;
  }

  #drawRates(point) {
    const points = this.#points;
    this.#rates.draw([points.map((p) => p.at), ...rateSeries.map((s) => points.map((p) => p[s.id]))]);
    for (const s of rateSeries) this.#values.get(s.id).textContent = `${rate(point[s.id])}/s`;
    const most = Math.max(...points.map((p) => p.requests));
    const shown = points.at(-1).at - points[0].at + 1; // seconds: each point is of the one before it
    document.querySelector('#rates-words').textContent =
      `Now ${rate(point.requests)} requests/s, ${rate(point.queries)} queries/s, ${rate(point.prevented)} prevented/s. ` +
      `Most in the last ${uptime(shown)}: ${rate(most)} requests/s.`;
    const rows = points.slice(-tabled).reverse();
    table('#rates-table', ['Time', 'Requests/s', 'Queries/s', 'Prevented/s'], rows.map((p) => [clock.format(p.at * 1000), rate(p.requests), rate(p.queries), rate(p.prevented)]));
  }

  #drawLatency() {
    const points = this.#points;
    const seen = latencyRoles.filter((role) => points.some((p) => p.latency[role.id]));
    latencyRoles.forEach((role, i) => {
      this.#latency.show(2 * i, seen.includes(role));
      this.#latency.show(2 * i + 1, seen.includes(role));
    });
    this.#latency.draw([
      points.map((p) => p.at),
      ...latencyRoles.flatMap((role) => ['p50', 'p99'].map((name) => points.map((p) => p.latency[role.id]?.[name] ?? null))),
    ]);
    const legend = document.querySelector('#latency-legend');
    legend.replaceChildren(
      ...seen.map((role) => {
        const last = points.findLast((p) => p.latency[role.id]).latency[role.id];
        return element('li', {}, swatch(role.id, false), `${role.name} p50 `, element('b', {}, ms(last.p50)), swatch(role.id, true), 'p99 ', element('b', {}, ms(last.p99)));
      }),
    );
    const last = points.findLast((p) => Object.keys(p.latency).length > 0);
    document.querySelector('#latency-words').textContent = last
      ? `How long callers wait, ${seen.length === 1 ? 'for the one role' : `for the ${count(seen.length)} roles`} seen in these three minutes. Solid: half of them wait no longer. Dashed: 99 of 100.`
      : 'No requests in these three minutes.';
    const rows = points.filter((p) => Object.keys(p.latency).length > 0).slice(-tabled).reverse();
    table(
      '#latency-table',
      ['Time', 'Role', 'Requests', 'p50', 'p99'],
      rows.flatMap((p) => latencyRoles.filter((role) => p.latency[role.id]).map((role) => {
        const l = p.latency[role.id];
        return [clock.format(p.at * 1000), role.name, count(l.requests), ms(l.p50), ms(l.p99)];
      })),
    );
  }
}

// table writes a table, if anybody looks.
function table(selector, head, rows) {
  const target = document.querySelector(selector);
  if (!target.closest('details').open) return;
  target.replaceChildren(
    element('thead', {}, element('tr', {}, ...head.map((text) => element('th', { scope: 'col' }, text)))),
    element('tbody', {}, ...rows.map((row) => element('tr', {}, ...row.map((text) => element('td', {}, text))))),
  );
}
