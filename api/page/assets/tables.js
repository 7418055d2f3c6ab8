// Replicas, Redis servers, hottest keys and leases.

import { count, element, ms, plural, roles, uptime } from './words.js';

const goneFor = 60_000; // ms that a replica which vanished stays in the list
const leasesShown = 20;

// Replicas remembers those that vanished.
export class Replicas {
  #seen = new Map(); // by name: the last that was heard, and when
  #body = document.querySelector('#replicas-table tbody');
  #words = document.querySelector('#replicas-words');

  show(snapshot, now) {
    const here = new Set();
    for (const live of snapshot.replicas) {
      here.add(live.stats.replica);
      this.#seen.set(live.stats.replica, { live, at: now });
    }
    // A replica that Redis counted and that did not answer is not gone; nor is
    // any known to be while the others cannot be asked.
    const unsure = snapshot.fleet.missing > 0 || Boolean(snapshot.fleet.note);
    for (const [name, seen] of this.#seen) {
      if (!here.has(name) && now - seen.at > goneFor) this.#seen.delete(name);
    }
    const rows = [...this.#seen].sort(([a], [b]) => a.localeCompare(b, 'en', { numeric: true }));
    this.#body.replaceChildren(...rows.map(([name, seen]) => this.#row(name, seen.live, here.has(name) ? 'live' : unsure ? 'silent' : 'gone')));
    const gone = rows.filter(([name]) => !here.has(name)).length;
    this.#words.textContent =
      `${plural(here.size, 'replica answers', 'replicas answer')}` + (gone > 0 ? `; ${plural(gone, 'other was', 'others were')} here within the last minute.` : '.');
  }

  #row(name, live, state) {
    const stats = live.stats;
    const local = stats.tiers.local;
    const flights = local ? local.active_flights : stats.active_calls;
    const words = { live: 'live', silent: 'no answer', gone: 'gone' };
    return element(
      'tr',
      { 'data-replica': name, 'data-state': state },
      element('th', { scope: 'row', 'data-label': 'Replica' }, element('code', {}, name)),
      cell('State', {}, stateOf(state, words[state])),
      cell('Mode', {}, stats.mode),
      cell('Uptime', { class: 'number' }, state === 'live' ? uptime(stats.uptime_seconds) : '–'),
      cell('Requests by role', {}, roleCounts(live)),
      cell('Redis', {}, redisOf(stats.tiers.distributed?.redis_servers ?? [])),
      cell('Flights now', { class: 'number' }, state === 'live' ? count(flights) : '–'),
      cell('Waiting', { class: 'number' }, state === 'live' && local ? count(local.waiting) : '–'),
    );
  }
}

// cell is one of a table whose rows are cards on a phone: there it shows its label.
function cell(label, attributes, ...content) {
  return element('td', { 'data-label': label, ...attributes }, ...content);
}

function stateOf(state, words = state) {
  return element('span', { class: `state is-${state}` }, words);
}

// redisOf says how many of a replica's Redis servers are down.
function redisOf(servers) {
  if (servers.length === 0) return '–';
  const down = servers.filter((server) => server.state !== 'up').length;
  if (down === 0) return stateOf('up');
  return stateOf('down', servers.length === 1 ? 'down' : `${down} of ${servers.length} down`);
}

// showRedisServers lists each server once, as the replicas see it together.
export function showRedisServers(snapshot) {
  const servers = snapshot.fleet.tiers.distributed?.redis_servers ?? [];
  document.querySelector('#redis-table tbody').replaceChildren(
    ...servers.map((server) =>
      element(
        'tr',
        {},
        element('th', { scope: 'row', 'data-label': 'Server' }, element('code', {}, server.address)),
        cell('State', {}, stateOf(server.state)),
        cell('Since', {}, element('span', { title: new Date(server.since * 1000).toLocaleString() }, `${uptime(Math.max(0, snapshot.at - server.since))} ago`)),
        cell('Why', {}, server.why || '–'),
      ),
    ),
  );
  document.querySelector('#redis').hidden = servers.length === 0;
  showUnasked(snapshot.fleet.tiers.distributed);
}

// showUnasked tells what an adaptive fleet spares Redis.
function showUnasked(tier) {
  const words = document.querySelector('#redis-unasked');
  words.hidden = !tier?.unasked;
  if (tier?.unasked) {
    const keys = tier.hot_keys > 0 ? `It is asked for ${plural(tier.hot_keys, 'key that is', 'keys that are')} shared.` : 'No key is shared now.';
    words.textContent = `Of ${plural(tier.leaders, 'flight')}, ${count(tier.unasked)} did not ask Redis, because nobody shared their keys. ${keys}`;
  }
}

// roleCounts is a list of chips: how many requests had which role.
function roleCounts(live) {
  const chips = element('ul', { class: 'chips' });
  for (const role of roles) {
    const n = (live.latency[role.id] ?? []).reduce((sum, bucket) => sum + bucket.count, 0);
    if (n > 0) chips.append(element('li', { class: `chip of-${role.id}`, title: role.says }, element('b', {}, count(n)), ` ${n === 1 ? role.name : role.many}`));
  }
  return chips.childElementCount > 0 ? chips : 'none yet';
}

export function showHotKeys(snapshot) {
  const most = snapshot.hot_keys[0]?.requests ?? 0;
  document.querySelector('#hot-table tbody').replaceChildren(
    ...snapshot.hot_keys.map((hot) =>
      element('tr', {}, element('th', { scope: 'row' }, element('code', {}, hot.key)), element('td', { class: 'number' }, count(hot.requests)), element('td', {}, element('meter', { min: 0, max: most, value: hot.requests, 'aria-label': 'share of the hottest' }))),
    ),
  );
  document.querySelector('#hot-table').hidden = most === 0;
  document.querySelector('#hot-empty').hidden = most !== 0;
}

export function showLeases(snapshot) {
  const all = snapshot.replicas.flatMap((live) => (live.leases?.oldest ?? []).map((lease) => ({ ...lease, replica: live.stats.replica })));
  all.sort((a, b) => b.age_ms - a.age_ms);
  const total = snapshot.replicas.reduce((sum, live) => sum + (live.leases?.count ?? 0), 0);
  document.querySelector('#leases-table tbody').replaceChildren(
    ...all.slice(0, leasesShown).map((lease) =>
      element('tr', {}, element('th', { scope: 'row' }, element('code', {}, lease.key)), element('td', {}, element('code', {}, lease.replica)), element('td', { class: 'number' }, ms(lease.age_ms))),
    ),
  );
  document.querySelector('#leases-table').hidden = total === 0;
  document.querySelector('#leases-empty').hidden = total !== 0;
  const distributed = snapshot.replicas.some((live) => live.leases);
  document.querySelector('#leases-words').textContent = !distributed
    ? 'Without the distributed tier nobody holds leases: each replica runs its own queries.'
    : total > Math.min(all.length, leasesShown)
      ? `${plural(total, 'lease')} held in the fleet; these are the oldest.`
      : 'A lease is held by the replica that runs a key\u2019s query for the fleet.';
}
