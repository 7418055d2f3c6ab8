// Puts the parts together.

import { Burst } from './burst.js';
import { Charts } from './charts.js';
import { watch } from './live.js';
import { queriesOf, Rates } from './rates.js';
import { showShadow } from './shadow.js';
import { Replicas, showHotKeys, showLeases, showRedisServers } from './tables.js';
import { count } from './words.js';

const charts = new Charts();
const rates = new Rates();
const replicas = new Replicas();
const burst = document.querySelector('#burst') ? new Burst() : undefined; // a proxy has none
const connection = document.querySelector('#connection');
const note = document.querySelector('#note');
let through = '';

function say(state) {
  connection.dataset.state = state;
  const text = state === 'live' ? `live, through ${through}` : state;
  if (connection.textContent !== text) connection.textContent = text;
}

function showTotals(fleet) {
  const values = { total_requests: count(fleet.total_requests), queries: count(queriesOf(fleet)), queries_prevented: count(fleet.queries_prevented), hit_rate: fleet.hit_rate };
  for (const [name, value] of Object.entries(values)) document.querySelector(`[data-total=${name}]`).textContent = value;
}

watch(
  (snapshot) => {
    const now = Date.now();
    through = snapshot.fleet.replica;
    say('live');
    note.textContent = snapshot.fleet.note ?? '';
    note.hidden = !snapshot.fleet.note;
    showTotals(snapshot.fleet);
    replicas.show(snapshot, now);
    showShadow(snapshot);
    showRedisServers(snapshot);
    showHotKeys(snapshot);
    showLeases(snapshot);
    burst?.know(snapshot);
    const point = rates.next(snapshot, now);
    if (point) charts.add(point);
  },
  (state) => {
    if (state !== 'live') say(state); // which the snapshot says, with its replica
  },
);
