// The picture of the two tiers: dots are requests, which flow from the callers
// through the balancer to the replicas, merge there into flights, and these,
// through Redis, into one leader, who runs the query for all.
//
// Everything is a function of the time since the beginning, so that the picture
// can be stopped, shown again, or stand still at its end.

import { count, failed, plural, roleName } from './words.js';

const dotsAtMost = 150;
const namespace = 'http://www.w3.org/2000/svg';
const wideFrom = 720; // px of room, for the picture that flows to the right

// stages of the picture, in seconds.
const time = { spread: 1, merge: 2.9, elect: 4.4, query: 6.4, answer: 8, end: 11.2 };
// Without a distributed tier the query follows at once.
const timeLocal = { spread: 1, merge: 2.9, elect: 4.4, query: 4.4, answer: 6, end: 9 };

function svg(tag, attributes = {}, ...children) {
  const e = document.createElementNS(namespace, tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

function cut(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

// shortened cuts names that are too long. Those of one deployment differ at their
// end, those of one domain at their beginning: what tells them apart stays.
function shortened(names, most) {
  const end = Math.ceil((most - 1) * 0.6);
  const ways = [(name) => `${name.slice(0, most - 1 - end)}…${name.slice(-end)}`, (name) => cut(name, most)];
  const tries = ways.map((way) => names.map((name) => (name.length > most ? way(name) : name)));
  return tries.find((short) => new Set(short).size === names.length) ?? tries[0];
}

// Layout says where things are: to the right where there is room, else
// downwards.
class Layout {
  constructor(wide, replicas, redis) {
    this.wide = wide;
    this.most = wide ? 6 : 3;
    const n = Math.min(replicas, this.most);
    if (wide) {
      const boxHeight = 88;
      const gap = 18;
      const inside = n * boxHeight + (n - 1) * gap;
      this.width = 1000;
      this.top = 74;
      this.height = this.top + Math.max(inside, 250) + 14;
      const middle = this.top + (this.height - this.top - 14) / 2;
      this.callers = { x: 88, y: middle, w: 130, h: this.height - this.top - 14 };
      this.balancer = { x: 262, y: middle, w: 100, h: 60 };
      this.replicas = Array.from({ length: n }, (_, i) => ({ x: 508, y: middle - inside / 2 + boxHeight / 2 + i * (boxHeight + gap), w: 232, h: boxHeight }));
      const span = this.height - this.top - 14;
      this.redis = redis ? { x: 882, y: this.top + span * 0.24, w: 210, h: 104 } : undefined;
      this.database = { x: 882, y: redis ? this.top + span * 0.78 : middle, w: 150, h: 100 };
    } else {
      this.width = 360;
      this.top = 0;
      const w = (this.width - 8 - (n - 1) * 8) / n;
      this.callers = { x: 180, y: 66, w: 300, h: 76 };
      this.balancer = { x: 180, y: 150, w: 110, h: 42 };
      this.replicas = Array.from({ length: n }, (_, i) => ({ x: 4 + w / 2 + i * (w + 8), y: 272, w, h: 104 }));
      this.redis = redis ? { x: 92, y: 422, w: 172, h: 92 } : undefined;
      this.database = { x: redis ? 270 : 180, y: 422, w: 120, h: 92 };
      this.height = 476;
    }
  }

  // curve goes from one box to another, out of the side that faces it. aside moves
  // its end along that side.
  curve(from, to, aside = 0) {
    if (this.wide) {
      const right = to.x > from.x ? 1 : -1;
      const [a, b] = [from.x + (right * from.w) / 2, to.x - (right * to.w) / 2];
      const bend = (a + b) / 2;
      return [{ x: a, y: from.y }, { x: bend, y: from.y }, { x: bend, y: to.y + aside }, { x: b, y: to.y + aside }];
    }
    const down = to.y > from.y ? 1 : -1;
    const [a, b] = [from.y + (down * from.h) / 2, to.y - (down * to.h) / 2];
    const bend = (a + b) / 2;
    return [{ x: from.x, y: a }, { x: from.x, y: bend }, { x: to.x + aside, y: bend }, { x: to.x + aside, y: b }];
  }

  // port is where the i-th replica's flights meet the others: beside them.
  port(i) {
    return (i - (this.replicas.length - 1) / 2) * (this.wide ? 26 : 40);
  }

  // entry is where dots arrive at a replica, and flight where they merge.
  entry(box) {
    return this.wide ? { x: box.x - box.w / 2 + 14, y: box.y } : { x: box.x, y: box.y - box.h / 2 + 12 };
  }

  flight(box) {
    return this.wide ? { x: box.x + box.w / 2 - 20, y: box.y } : { x: box.x, y: box.y + box.h / 2 - 14 };
  }

  // seats are the callers' places.
  seats(n) {
    const { x, y, w, h } = this.callers;
    const columns = Math.max(1, Math.min(n, Math.ceil(Math.sqrt((n * w) / h))));
    const rows = Math.ceil(n / columns);
    const step = Math.min(12, w / columns, h / rows);
    return Array.from({ length: n }, (_, i) => ({ x: x + ((i % columns) - (columns - 1) / 2) * step, y: y + (Math.floor(i / columns) - (rows - 1) / 2) * step }));
  }
}

function pathOf([a, b, c, d]) {
  return `M${a.x} ${a.y}C${b.x} ${b.y} ${c.x} ${c.y} ${d.x} ${d.y}`;
}

function straight(from, to) {
  return [from, from, to, to];
}

function along([a, b, c, d], u) {
  const v = 1 - u;
  const mix = (p, q, r, s) => v * v * v * p + 3 * v * v * u * q + 3 * v * u * u * r + u * u * u * s;
  return { x: mix(a.x, b.x, c.x, d.x), y: mix(a.y, b.y, c.y, d.y) };
}

// loosened lets dots that go the same way keep beside each other.
function loosened([a, b, c, d], seat) {
  // Neither chance, so that a replay is the same, nor alike for neighbours.
  const off = (k) => {
    const far = Math.sin(seat * 12.9898 + k * 78.233) * 43758.5453;
    return (far - Math.floor(far) - 0.5) * 30;
  };
  return [a, { x: b.x + off(1), y: b.y + off(2) }, { x: c.x + off(3), y: c.y + off(4) }, d];
}

const ease = (u) => (u < 0.5 ? 2 * u * u : 1 - 2 * (1 - u) * (1 - u));

// Actor is a dot with a life of its own.
class Actor {
  #circle;
  #moves = [];
  #looks = [];

  constructor(layer, at) {
    this.#circle = svg('circle', { r: 0 });
    layer.append(this.#circle);
    this.#moves.push({ from: 0, to: 0, curve: straight(at, at) });
  }

  // look changes radius and class at a moment, within a quarter of a second.
  look(from, r, kind) {
    this.#looks.push({ from, r, kind });
    return this;
  }

  move(from, to, curve) {
    this.#moves.push({ from, to, curve });
    return this;
  }

  draw(now) {
    const move = this.#moves.findLast((m) => m.from <= now) ?? this.#moves[0];
    const { x, y } = along(move.curve, move.to > move.from ? ease(Math.min(1, (now - move.from) / (move.to - move.from))) : 1);
    const i = this.#looks.findLastIndex((l) => l.from <= now);
    const look = this.#looks[i];
    const before = this.#looks[i - 1]?.r ?? 0;
    const r = look ? before + (look.r - before) * Math.min(1, (now - look.from) / 0.25) : 0;
    this.#circle.setAttribute('cx', x.toFixed(1));
    this.#circle.setAttribute('cy', y.toFixed(1));
    this.#circle.setAttribute('r', Math.max(0, r).toFixed(2));
    this.#circle.setAttribute('class', look?.kind ?? '');
  }
}

// groupsOf has what became of a replica's flights, by role.
function groupsOf(share) {
  const groups = {};
  for (const call of share.calls) if (call.role !== 'local-follower' && call.role !== 'none') groups[call.role] = (groups[call.role] ?? 0) + 1;
  return groups;
}

// roleOrder puts whoever started a flight before those who joined it.
const roleOrder = ['leader', 'fallback', 'cached', 'remote-follower', 'local-follower', 'none'];

// Picture draws into an element, and tells onStep which step it shows: a number
// from 0, or -1 when it stands still.
export class Picture {
  #target;
  #onStep;
  #root;
  #actors = [];
  #labels = []; // what is written once its time has come
  #result; // the burst shown; undefined: none
  #names = [];
  #mode = 'distributed';
  #wide;
  #now = 0;
  #frame = 0;
  #last = 0;
  #paused = false;

  constructor(target, onStep) {
    this.#target = target;
    this.#onStep = onStep;
    new ResizeObserver(() => {
      if ((target.clientWidth >= wideFrom) !== this.#wide) this.#build();
    }).observe(target);
  }

  // idle shows the fleet before any burst.
  idle(names, mode) {
    if (this.#result || (names.join() === this.#names.join() && mode === this.#mode)) return;
    this.#names = names;
    this.#mode = mode;
    this.#build();
  }

  show(result, animated) {
    this.#result = result;
    this.#mode = result.mode;
    this.#now = animated ? 0 : Infinity;
    this.#paused = false;
    this.#build();
    this.#run();
  }

  replay() {
    this.#now = 0;
    this.#paused = false;
    this.#run();
  }

  // pause stops it, or lets it go on, and returns whether it stands still.
  pause() {
    this.#paused = !this.#paused;
    this.#run();
    return this.#paused;
  }

  get #times() {
    return this.#mode === 'distributed' ? time : timeLocal;
  }

  #run() {
    cancelAnimationFrame(this.#frame);
    this.#last = 0;
    const tick = (stamp) => {
      if (this.#last) this.#now += Math.min(0.1, (stamp - this.#last) / 1000);
      this.#last = stamp;
      if (this.#now > this.#times.end) this.#now = Infinity;
      this.#draw();
      if (this.#now !== Infinity && !this.#paused) this.#frame = requestAnimationFrame(tick);
    };
    tick(0);
  }

  #draw() {
    const now = Math.min(this.#now, this.#times.end);
    for (const actor of this.#actors) actor.draw(now);
    for (const { element, from } of this.#labels) element.setAttribute('opacity', now >= from ? 1 : 0);
    if (!this.#result) return;
    const t = this.#times;
    const starts = this.#mode === 'distributed' ? [0, t.spread, t.merge, t.elect, t.query, t.answer] : [0, t.spread, t.merge, t.query, t.answer];
    this.#onStep(this.#now === Infinity ? -1 : starts.findLastIndex((start) => start <= now));
  }

  #build() {
    this.#wide = this.#target.clientWidth >= wideFrom;
    this.#actors = [];
    this.#labels = [];
    const shares = this.#shares();
    const layout = new Layout(this.#wide, shares.length, this.#mode === 'distributed');
    this.#root = svg('svg', { viewBox: `0 0 ${layout.width} ${layout.height}`, role: 'img', 'aria-label': this.#words(), class: this.#wide ? 'wide' : 'tall' });
    const edges = svg('g', { class: 'edges' });
    const boxes = svg('g', { class: 'boxes' });
    const dots = svg('g', { class: 'dots' });
    const words = svg('g', { class: 'words' });
    this.#root.append(edges, boxes, dots, words);
    this.#boxes(layout, shares, edges, boxes, words);
    if (this.#result) this.#cast(layout, shares, dots);
    this.#target.replaceChildren(this.#root);
    this.#draw();
  }

  // shares are the replicas in the picture; those that have no room are one.
  #shares() {
    const all = this.#result
      ? [...this.#result.replicas].sort((a, b) => a.replica.localeCompare(b.replica, 'en', { numeric: true }))
      : this.#names.map((replica) => ({ replica, state: 'ran', requests: 0, flights: 0, queries: 0, calls: [] }));
    const most = this.#wide ? 6 : 3;
    if (all.length <= most) return all;
    const rest = all.slice(most - 1);
    const sum = (of) => rest.reduce((total, share) => total + of(share), 0);
    return [
      ...all.slice(0, most - 1),
      { replica: `${rest.length} more`, state: 'ran', requests: sum((s) => s.requests), flights: sum((s) => s.flights), queries: sum((s) => s.queries), calls: rest.flatMap((s) => s.calls) },
    ];
  }

  #words() {
    const r = this.#result;
    if (!r) return 'Callers, balancer, replicas with the local tier, Redis with the distributed tier, and the database. A burst has not been sent yet.';
    const bad = r.failed + r.unfinished;
    return `${plural(r.requests, 'request')} became ${plural(r.flights, 'flight')} and ${plural(r.queries, 'query', 'queries')}.${bad > 0 ? ` ${count(bad)} failed.` : ''}`;
  }

  #boxes(layout, shares, edges, boxes, layer) {
    const t = this.#times;
    const r = this.#result;
    const edge = (from, to, kind, when = 0, aside = 0) => {
      const e = svg('path', { d: pathOf(layout.curve(from, to, aside)), class: kind });
      edges.append(e);
      if (r && when > 0) this.#labels.push({ element: e, from: when });
    };
    const text = (x, y, words, kind, from = 0, anchor = 'middle') => {
      const e = svg('text', { x, y, class: kind, 'text-anchor': anchor }, words);
      layer.append(e);
      if (r && from > 0) this.#labels.push({ element: e, from });
      return e;
    };
    const box = (at, kind) => boxes.append(svg('rect', { x: at.x - at.w / 2, y: at.y - at.h / 2, width: at.w, height: at.h, rx: 12, class: kind }));
    const distributed = this.#mode === 'distributed';
    const names = r ? r.replicas.map((share) => share.replica) : this.#names;
    const short = new Map(shortened(names, layout.wide ? 20 : 12).map((name, i) => [names[i], name]));

    if (layout.wide) {
      const head = (x, title, words, from) => {
        text(x, 22, title, 'head');
        if (words) text(x, 44, words, 'soft', from);
      };
      head(layout.callers.x, 'Callers', r ? plural(r.requests, 'request') : '', 0);
      head(layout.balancer.x, 'Balancer', r ? plural(r.replicas.length, 'share') : '', t.spread);
      head(508, this.#mode === 'off' ? 'Replicas' : 'Replicas: local tier', r ? (this.#mode === 'off' ? 'nothing is merged' : plural(r.flights, 'flight')) : 'one flight each', t.merge);
      head(882, distributed ? 'Fleet: distributed tier' : 'Database', r ? plural(r.queries, 'query', 'queries') : distributed ? 'one leader, one query' : '', t.query);
    } else {
      text(180, 16, r ? plural(r.requests, 'caller') : 'Callers', 'head');
    }

    edge(layout.callers, layout.balancer, 'edge');
    box(layout.balancer, 'box');
    text(layout.balancer.x, layout.balancer.y + 5, r?.balancer ?? 'balancer', 'name');
    shares.forEach((share, i) => {
      const at = layout.replicas[i];
      const groups = groupsOf(share);
      edge(layout.balancer, at, 'edge');
      if (layout.redis) edge(at, layout.redis, 'edge lease', 0, layout.port(i));
      const ran = share.queries > 0;
      if (!layout.redis || !r) edge(at, layout.database, 'edge faint', 0, layout.port(i) / 2);
      if (ran && r) edge(at, layout.database, 'edge asked', t.query, layout.port(i) / 2);
      box(at, 'box');
      const left = layout.wide ? at.x - at.w / 2 + 30 : at.x;
      const anchor = layout.wide ? 'start' : 'middle';
      const top = layout.wide ? at.y - 18 : at.y - 24;
      const name = text(left, r ? top : at.y + 5, short.get(share.replica) ?? share.replica, 'name', 0, anchor);
      name.append(svg('title', {}, share.replica));
      if (!r) return;
      if (share.state !== 'ran') {
        const why = { busy: 'busy: took no part', refused: 'refused the order' }[share.state] ?? 'did not answer';
        text(left, top + 22, why, 'bad', t.spread, anchor);
        return;
      }
      if (layout.wide) {
        text(left, top + 22, this.#mode === 'off' ? plural(share.requests, 'request') : `${plural(share.requests, 'request')} → ${plural(share.flights, 'flight')}`, 'soft', t.merge, anchor);
      } else {
        text(left, top + 18, plural(share.requests, 'request'), 'soft', t.spread, anchor);
        text(left, top + 34, this.#mode === 'off' ? '' : plural(share.flights, 'flight'), 'soft', t.merge, anchor);
      }
      const outcome = this.#mode === 'off'
        ? [['leader', plural(share.queries, 'query of its own', 'queries of their own')]]
        : Object.entries(groups).sort(([a], [b]) => roleOrder.indexOf(a) - roleOrder.indexOf(b)).map(([role, n]) => [role, this.#roleWords(role, n)]);
      const bad = share.calls.filter(failed).length;
      if (bad > 0) outcome.splice(1, outcome.length, ['failed', `${count(bad)} failed`]);
      outcome.slice(0, 2).forEach(([role, words], line) => {
        text(left, top + (layout.wide ? 44 : 51) + line * 16 - (layout.wide && outcome.length > 1 ? 4 : 0), layout.wide ? `${role === 'failed' ? '○' : '●'} ${words}` : cut(words, 17), `role of-${role}`, distributed ? t.elect + 1 : t.query, anchor);
      });
    });
    if (layout.redis) {
      const at = layout.redis;
      box(at, 'box');
      text(at.x, at.y - (r ? 22 : -5), 'Redis', 'name');
      if (r) {
        const holders = r.replicas.filter((s) => groupsOf(s).leader > 0).map((s) => s.replica);
        text(at.x, at.y + 2, cut(`lease on product:${r.product}`, layout.wide ? 28 : 24), 'soft', t.elect);
        const held = holders.length === 0 ? (groupsOf({ calls: r.replicas.flatMap((s) => s.calls) }).fallback ? 'could not be used' : 'held by another request') : `held by ${holders.length === 1 ? short.get(holders[0]) : `${holders.length} in turn`}`;
        text(at.x, at.y + 24, held, 'role of-leader', t.elect + 1);
      }
    }
    const at = layout.database;
    const [left, right, top, bottom] = [at.x - at.w / 2, at.x + at.w / 2, at.y - at.h / 2 + 10, at.y + at.h / 2 - 10];
    boxes.append(
      svg('path', { d: `M${left} ${top}v${bottom - top}a${(right - left) / 2} 10 0 0 0 ${right - left} 0v${top - bottom}`, class: 'box' }),
      svg('ellipse', { cx: at.x, cy: top, rx: (right - left) / 2, ry: 10, class: 'box' }),
    );
    text(at.x, at.y + (r ? 6 : 10), 'Database', 'name');
    if (r) text(at.x, at.y + 28, plural(r.queries, 'query', 'queries'), 'role of-leader', t.query + 0.6);
  }

  #roleWords(role, n) {
    if (role === 'leader' && this.#mode === 'local') return n === 1 ? 'runs the query' : `runs ${count(n)} queries`;
    return n === 1 ? roleName(role) : `${count(n)} × ${roleName(role)}`;
  }

  // cast gives each dot its part.
  #cast(layout, shares, dots) {
    const total = shares.reduce((sum, share) => sum + share.requests, 0);
    const shown = Math.min(total, dotsAtMost);
    const seats = layout.seats(shown);
    // Callers stay where they are; it is their requests that travel.
    dots.append(...seats.map((at) => svg('circle', { cx: at.x.toFixed(1), cy: at.y.toFixed(1), r: layout.wide ? 4 : 3.2, class: 'seat' })));
    let seat = 0;
    let wanted = 0;
    shares.forEach((share, i) => {
      const at = layout.replicas[i];
      wanted += (share.requests / total) * shown;
      const n = Math.round(wanted) - seat;
      const calls = [...share.calls].sort((a, b) => roleOrder.indexOf(a.role) - roleOrder.indexOf(b.role));
      for (let j = 0; j < n; j++) {
        const call = calls[Math.floor((j * calls.length) / n)];
        this.#request(layout, dots, { ...seats[seat], number: seat }, at, call, j / n, layout.port(i) / 2);
        seat++;
      }
      if (this.#mode !== 'off') this.#flights(layout, dots, at, groupsOf(share), layout.port(i));
    });
    this.#result.dots = { shown, each: total / Math.max(1, shown) };
  }

  #actor(layer, at) {
    const actor = new Actor(layer, at);
    this.#actors.push(actor);
    return actor;
  }

  // request lets one dot go from its caller's place to the replica, and back with
  // the colour of its role.
  #request(layout, dots, seat, replica, call, late, aside) {
    const t = this.#times;
    const size = layout.wide ? 4.4 : 3.6;
    const begin = t.spread + late * 0.5;
    const home = [loosened(layout.curve(replica, layout.balancer), seat.number), straight({ x: layout.balancer.x, y: layout.balancer.y }, seat)];
    const actor = this.#actor(dots, seat).look(late * 0.5, size, 'dot');
    actor.move(begin, begin + 0.55, straight(seat, { x: layout.balancer.x, y: layout.balancer.y }));
    const entry = layout.entry(replica);
    const spread = { x: entry.x, y: entry.y + (layout.wide ? (late - 0.5) * (replica.h - 26) : 0) };
    if (!layout.wide) spread.x += (late - 0.5) * (replica.w - 24);
    const way = loosened(layout.curve(layout.balancer, replica), seat.number);
    way[3] = spread;
    actor.move(begin + 0.55, begin + 1.25, way);
    if (!call) return; // nobody knows what became of it
    const kind = `dot of-${failed(call) ? 'failed' : call.role}`;
    let back = this.#returns(call.role) + late * 0.5;
    if (this.#mode === 'off') {
      const to = loosened(layout.curve(replica, layout.database, aside), seat.number);
      actor.move(t.query + late, t.query + late + 0.8, to).look(t.query + late, size, kind);
      actor.move(t.answer + late * 0.8, t.answer + late * 0.8 + 0.7, [...to].reverse());
      back = t.answer + 0.9 + late * 0.8;
    } else {
      actor.move(t.merge + late * 0.6, t.merge + late * 0.6 + 0.5, straight(spread, layout.flight(replica)));
      actor.look(t.merge + late * 0.6 + 0.4, 0, 'dot');
    }
    actor.look(back, size, kind).move(back, back + 0.6, home[0]).move(back + 0.6, back + 1.1, home[1]);
  }

  // returns is when the result is at the replica whose flight had the role.
  #returns() {
    const t = this.#times;
    return this.#mode === 'distributed' ? t.answer + 1.5 : t.answer + 0.7;
  }

  // flights lets a replica's flights, one disc for each role, find their leader.
  #flights(layout, dots, replica, groups, port) {
    const t = this.#times;
    const at = layout.flight(replica);
    const toRedis = layout.redis ? layout.curve(replica, layout.redis, port) : undefined;
    const toDatabase = layout.curve(replica, layout.database, port / 2);
    const back = (curve) => [...curve].reverse();
    const size = layout.wide ? 10 : 8;
    for (const role of Object.keys(groups)) {
      const flight = this.#actor(dots, at).look(t.merge + 0.5, size, 'flight');
      const asks = toRedis && role !== 'fallback';
      if (asks) flight.move(t.elect, t.elect + 0.9, toRedis);
      flight.look(asks ? t.elect + 0.9 : t.query, size, `flight of-${role}`);
      if (role === 'leader' || role === 'fallback') {
        if (asks) flight.move(t.query - 0.8, t.query, back(toRedis));
        flight.move(t.query, t.query + 0.8, toDatabase).move(t.answer, t.answer + 0.7, back(toDatabase));
        if (asks) flight.move(t.answer + 0.7, t.answer + 1.2, toRedis);
        flight.look(this.#returns() + 0.1, 0, `flight of-${role}`);
      } else {
        flight.move(t.answer + 1.2, t.answer + 1.7, back(toRedis)).look(this.#returns() + 0.5, 0, `flight of-${role}`);
      }
    }
  }
}
