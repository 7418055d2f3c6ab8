// The burst: its form, the request, and what became of it in words, as a picture
// and as a table.

import { Picture } from './picture.js';
import { count, element, list, ms, plural, roleName, roles } from './words.js';

const still = matchMedia('(prefers-reduced-motion: reduce)');

// Burst handles its part of the page.
export class Burst {
  #form = document.querySelector('#burst-form');
  #button = document.querySelector('#burst-button');
  #words = document.querySelector('#burst-result');
  #steps = document.querySelector('#steps');
  #controls = document.querySelector('#picture-controls');
  #pause = document.querySelector('#pause');
  #details = document.querySelector('#calls');
  #picture = new Picture(document.querySelector('#picture'), (step) => this.#at(step));
  #result;
  #sending = false;

  constructor() {
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#pause.addEventListener('click', () => {
      if (this.#pause.getAttribute('aria-disabled') !== 'true') this.#pausing(this.#picture.pause());
    });
    document.querySelector('#replay').addEventListener('click', () => {
      this.#picture.replay();
      this.#pausing(false);
    });
    this.#details.addEventListener('toggle', () => this.#table());
  }

  // know draws the fleet while there is no burst to draw.
  know(snapshot) {
    this.#picture.idle(snapshot.replicas.map((live) => live.stats.replica), snapshot.fleet.mode);
  }

  async #send() {
    if (this.#sending) return;
    const fields = new FormData(this.#form);
    const [product, requests, token] = [Number(fields.get('product')), Number(fields.get('requests')), fields.get('token')];
    // No token has other characters, and fetch does not take them.
    if (/[^ -~]/.test(token)) {
      this.#refused(401, undefined, true);
      return;
    }
    this.#busy(true);
    this.#say(`Sending ${plural(requests, 'request')} for product ${product} …`);
    try {
      const headers = { 'Content-Type': 'application/json' };
      if (token) headers.Authorization = `Bearer ${token}`;
      const answer = await fetch('/burst', { method: 'POST', headers, body: JSON.stringify({ product, requests }) });
      const body = await answer.json();
      if (answer.ok) this.#show({ ...body, balancer: answer.headers.get('Server')?.startsWith('nginx') ? 'nginx' : 'balancer' });
      else this.#refused(answer.status, body, Boolean(token));
    } catch {
      this.#say('No replica answered. Try again.', 'bad');
    } finally {
      this.#busy(false);
    }
  }

  #busy(sending) {
    this.#sending = sending;
    // A button that is disabled would lose the keyboard's focus.
    this.#button.setAttribute('aria-disabled', String(sending));
    this.#button.textContent = sending ? 'Sending …' : 'Send burst';
  }

  #refused(status, problem, hadToken) {
    if (status === 401) {
      document.querySelector('#token-field').hidden = false;
      document.querySelector('#token-hint').hidden = false;
      this.#form.elements.token.focus();
      this.#say(hadToken ? 'The admin token is wrong.' : 'This fleet wants its admin token for a burst: enter it above.', 'bad');
    } else {
      this.#say(`${problem.title}: ${problem.detail}`, 'bad');
    }
  }

  #show(result) {
    this.#result = result;
    this.#say(headline(result), lost(result) > 0 ? 'bad' : '');
    this.#steps.replaceChildren(...captions(result).map((words) => element('li', {}, words)));
    this.#picture.show(result, !still.matches && result.requests > 0);
    this.#controls.hidden = false;
    this.#pause.hidden = document.querySelector('#replay').hidden = still.matches;
    this.#pausing(false);
    this.#legend();
    this.#details.hidden = false;
    this.#table();
  }

  #legend() {
    const { dots } = this.#result;
    const bad = lost(this.#result);
    const seen = roles.filter((role) => this.#result.roles[role.id]);
    document.querySelector('#picture-roles').replaceChildren(
      ...seen.map((role) => element('li', { class: `chip of-${role.id}` }, element('b', {}, count(this.#result.roles[role.id])), ` ${this.#result.roles[role.id] === 1 ? role.name : role.many}`)),
      ...(bad > 0 ? [element('li', { class: 'chip of-failed' }, element('b', {}, count(bad)), ' of them failed')] : []),
      ...(dots && dots.each > 1 ? [element('li', { class: 'soft' }, `${dots.shown} dots stand for all of them`)] : []),
    );
  }

  #pausing(paused) {
    this.#pause.textContent = paused ? 'Go on' : 'Pause';
  }

  // at marks the step that the picture shows.
  #at(step) {
    [...this.#steps.children].forEach((item, i) => {
      if (i === step) item.setAttribute('aria-current', 'step');
      else item.removeAttribute('aria-current');
    });
    this.#steps.classList.toggle('moving', step >= 0);
    this.#pause.setAttribute('aria-disabled', String(step < 0)); // which keeps the focus
  }

  #say(words, kind = '') {
    this.#words.textContent = words;
    this.#words.className = `result ${kind}`;
  }

  #table() {
    if (!this.#details.open || !this.#result) return;
    let number = 0;
    const rows = this.#result.replicas.flatMap((share) =>
      share.calls.map((call) => {
        number++;
        return element(
          'tr',
          {},
          element('td', { class: 'number' }, String(number)),
          element('td', {}, element('code', {}, share.replica)),
          element('td', {}, element('span', { class: `chip of-${call.role}` }, roleName(call.role))),
          element('td', {}, call.status === 0 ? 'did not end in time' : String(call.status)),
          element('td', { class: 'number' }, call.start_ms.toFixed(1)),
          element('td', { class: 'number' }, call.ms.toFixed(1)),
        );
      }),
    );
    this.#details.querySelector('tbody').replaceChildren(...rows);
  }
}

// lost is how many requests got neither a product nor the news that there is none.
function lost(r) {
  return r.failed + r.unfinished;
}

// headline says what the burst came to.
function headline(r) {
  const queries = plural(r.queries, 'query', 'queries');
  const chain = r.mode === 'off' ? [plural(r.requests, 'request'), queries] : [plural(r.requests, 'request'), plural(r.flights, 'flight'), queries];
  const calls = r.replicas.flatMap((share) => share.calls);
  const slowest = Math.max(0, ...calls.map((call) => call.ms));
  const sentences = [`${chain.join(' → ')}; ${r.prevented === 1 ? '1 query' : `${count(r.prevented)} queries`} prevented.`, `The slowest answer took ${ms(slowest)}.`];
  if (r.failed > 0) sentences.push(`${count(r.failed)} failed.`);
  if (r.unfinished > 0) sentences.push(`${count(r.unfinished)} did not end in time.`);
  for (const share of r.replicas) {
    if (share.state === 'silent') sentences.push(`${share.replica} did not answer: nobody knows what became of its ${plural(share.requests, 'request')}.`);
    if (share.state === 'refused') sentences.push(`${share.replica} refused its ${plural(share.requests, 'request')}.`);
    if (share.state === 'busy') sentences.push(`${share.replica} was busy with another burst.`);
  }
  if (r.note) sentences.push(r.note);
  return sentences.join(' ');
}

// captions explains each step to somebody who has never heard of coalescing.
function captions(r) {
  const ran = r.replicas.filter((share) => share.state === 'ran' && share.requests > 0);
  if (ran.length === 0) return ['No replica made any of the requests.'];
  const shares = ran.map((share) => share.requests);
  const each = Math.min(...shares) === Math.max(...shares) ? count(shares[0]) : `${count(Math.min(...shares))} or ${count(Math.max(...shares))}`;
  const steps = [
    `${plural(r.requests, 'caller asks', 'callers ask')} for product ${r.product} at the same moment.`,
    ran.length === 1 ? `There is one replica: it gets them all.` : `They are spread over ${plural(ran.length, 'replica')}, as the balancer does: ${each} for each.`,
  ];
  const queries = plural(r.queries, 'query', 'queries');
  const bad = lost(r);
  const reached = bad > 0 && r.queries === 0 ? 'No query reaches the database.' : `The database gets ${queries}.`;
  const losses = `${count(bad)} of ${plural(r.requests, 'caller')} got ${r.failed === 0 ? 'no answer in time' : r.unfinished === 0 ? 'an error' : 'an error, or no answer in time'}.`;
  if (r.mode === 'off') {
    return [
      ...steps,
      'Coalescing is off: nobody looks whether somebody else is asking for the same thing.',
      bad > 0 ? `So every request has to run its own query. ${reached}` : `So every request runs its own query: the database gets ${queries} for one and the same row.`,
      bad > 0 ? `Each caller gets the outcome of its own query. ${losses}` : 'Each caller gets the result of its own query; those who found no free connection had to wait for one.',
    ];
  }
  steps.push(`Local tier: inside a replica, whoever asks for something that is being fetched already joins that flight. ${plural(r.requests, 'request becomes', 'requests become')} ${plural(r.flights, 'flight')}.`);
  if (r.mode === 'local') {
    return [...steps, `There is no distributed tier: the replicas know nothing of each other, and each has to run a query of its own. ${reached}`, bad > 0 ? `Each replica gives the outcome, an error like a result, to all callers of its flight. ${losses}` : 'Each replica gives its result to all callers of its flight.'];
  }
  const holders = ran.filter((share) => share.calls.some((call) => call.role === 'leader')).map((share) => share.replica);
  const waited = r.roles['remote-follower'] ?? 0;
  const fallbacks = r.roles.fallback ?? 0;
  const cached = r.roles.cached ?? 0;
  const parts = [];
  if (holders.length === 1) parts.push(`${holders[0]} gets it and leads${waited > 0 ? `; ${waited === 1 ? 'the other flight waits' : `the other ${count(waited)} flights wait`} for its result` : ''}.`);
  else if (holders.length > 1) parts.push(`${list(holders)} got it one after the other: some requests came when the query before had ended.`);
  else if (waited > 0) parts.push('Another request held it already: these wait for its result.');
  if (cached > 0) parts.push(`${plural(cached, 'flight took', 'flights took')} a result that had just finished.`);
  if (fallbacks > 0) parts.push(`Redis could not be used for ${plural(fallbacks, 'flight')}: better a query too many than no answer.`);
  return [
    ...steps,
    `Distributed tier: each flight asks Redis for the lease on product:${r.product}. ${parts.join(' ')}`,
    r.queries === 1 ? 'The leader sends one query to the database, for everybody.' : reached,
    `${bad > 0 ? 'The outcome comes back, an error like a result' : 'The result comes back'}: through Redis to the replicas that wait, and inside each replica to all of its callers. ` +
      (bad > 0 ? losses : `${plural(r.prevented, 'query was', 'queries were')} never sent.`),
  ];
}
