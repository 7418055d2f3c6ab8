// The names of roles and states, and how numbers are written.

// roles in the order in which they are shown. The first five are a caller's, as
// in X-Coalesce-Role.
export const roles = [
  { id: 'leader', name: 'leader', many: 'leaders', says: 'ran the query' },
  { id: 'local-follower', name: 'local follower', many: 'local followers', says: 'took the result of another caller of its replica' },
  { id: 'remote-follower', name: 'remote follower', many: 'remote followers', says: 'took the result of another replica' },
  { id: 'cached', name: 'cached', many: 'cached', says: 'took a result that had just finished' },
  { id: 'fallback', name: 'fallback', many: 'fallbacks', says: 'ran the query here, because Redis could not be used' },
  { id: 'normal', name: 'not coalesced', many: 'not coalesced', says: 'a request of the normal endpoint, or one that a proxy sent alone' },
  { id: 'none', name: 'no role', many: 'without a role', says: 'ended before it had one' },
];

const byId = new Map(roles.map((role) => [role.id, role]));

export function roleName(id) {
  return byId.get(id)?.name ?? id;
}

// failed tells whether a request of a burst got neither a product nor the news that
// there is none.
export function failed(call) {
  return call.status !== 200 && call.status !== 404;
}

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

export function count(n) {
  return whole.format(n);
}

export function rate(n) {
  return n >= 100 ? whole.format(n) : short.format(n);
}

export function ms(n) {
  if (n == null) return '–';
  if (n >= 10000) return `${short.format(n / 1000)} s`;
  if (n >= 100) return `${whole.format(n)} ms`;
  return `${short.format(n)} ms`;
}

// plural writes "1 flight", "3 flights".
export function plural(n, one, many = `${one}s`) {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function uptime(seconds) {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// list writes "a, b and c".
export function list(parts) {
  if (parts.length < 2) return parts.join('');
  return `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`;
}

// element makes an element; what is not an attribute is text, never markup.
export function element(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}
