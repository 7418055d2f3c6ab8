// What coalescing would save, in mode shadow.

import { count, element } from './words.js';

const keysShown = 10;
const body = document.querySelector('#shadow-table tbody');
const keys = document.querySelector('#shadow-keys tbody');

// showShadow shows the card while a replica runs in mode shadow.
export function showShadow(snapshot) {
  const shadow = snapshot.fleet.shadow;
  document.querySelector('#shadow').hidden = !shadow;
  if (!shadow) return;
  const tiers = [['local', shadow.local]];
  if (shadow.distributed) tiers.push(['distributed', shadow.distributed]);
  body.replaceChildren(
    ...tiers.map(([name, tier]) =>
      element(
        'tr',
        {},
        element('th', { scope: 'row', 'data-label': 'Tier' }, name),
        cell('Queries saved', withError(tier.saved, tier.executions_error, 0)),
        cell('Of all', tier.saved_rate),
        cell('Time of queries saved', `${withError(tier.saved_seconds, tier.seconds_error, 1)} s`),
        cell('Queries left', withError(tier.executions, tier.executions_error, 0)),
      ),
    ),
  );
  keys.replaceChildren(
    ...shadow.hottest.slice(0, keysShown).map((key) =>
      element('tr', {}, element('th', { scope: 'row', 'data-label': 'Key' }, element('code', {}, key.key)), cell('Queries', count(key.requests)), cell('With local', count(key.local)), cell('With distributed', shadow.distributed ? count(key.distributed) : '–')),
    ),
  );
  document.querySelector('#shadow-keys').hidden = shadow.hottest.length === 0;
  document.querySelector('#shadow-words').textContent = words(shadow);
}

function cell(label, text) {
  return element('td', { 'data-label': label, class: 'number' }, text);
}

// withError writes an estimate with its standard error.
function withError(n, error, decimals) {
  const write = (x) => (decimals === 0 ? count(x) : x.toLocaleString('en', { minimumFractionDigits: decimals, maximumFractionDigits: decimals }));
  return error > 0 ? `${write(n)} ± ${write(error)}` : write(n);
}

function words(shadow) {
  const all = `Of ${count(shadow.requests)} requests, each of which ran its own query, for ${count(shadow.query_seconds)} s together.`;
  if (!shadow.distributed) return `${all} Without Redis, nothing is known of the distributed tier.`;
  const sample = shadow.sample > 1 ? ` The hottest keys and one of ${count(shadow.sample)} others are followed.` : ' All keys are followed.';
  return `${all} ${(100 * shadow.covered).toFixed(1)}% of them are counted for the distributed tier.${sample}`;
}
