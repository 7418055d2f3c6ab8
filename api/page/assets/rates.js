// Counts become rates. Replicas come, go, restart and are reset: a count that
// falls, or is of a replica not seen before, never makes a negative rate.

// Rates compares each snapshot with the one before it.
export class Rates {
  #before = new Map(); // counts by instance
  #at; // the last snapshot's time, by its replica's clock
  #by; // who made it
  #received; // when it came, by this browser's clock

  // next returns what happened each second since the last snapshot: requests,
  // queries, prevented, and latency by role. It returns undefined for the first
  // one.
  next(snapshot, received) {
    const seconds = this.#elapsed(snapshot, received);
    const sums = { requests: 0, queries: 0, prevented: 0 };
    const buckets = new Map(); // by role: count by bucket's end
    const now = new Map();
    for (const replica of snapshot.replicas) {
      const counts = countsOf(replica);
      now.set(replica.instance, counts);
      if (seconds === undefined) continue;
      const began = replica.stats.uptime_seconds <= seconds + 0.5;
      const before = this.#before.get(replica.instance) ?? (began ? nothing : counts);
      for (const name of Object.keys(sums)) sums[name] += risen(before[name], counts[name]);
      for (const [id, bucket] of counts.buckets) {
        const n = risen(before.buckets.get(id)?.count ?? 0, bucket.count);
        if (n === 0) continue;
        if (!buckets.has(bucket.role)) buckets.set(bucket.role, []);
        buckets.get(bucket.role).push({ from: bucket.from, to: bucket.to, count: n });
      }
    }
    this.#before = now;
    if (seconds === undefined) return undefined;
    const latency = {};
    for (const [role, list] of buckets) latency[role] = { p50: percentile(list, 0.5), p99: percentile(list, 0.99), requests: total(list) };
    return { at: received / 1000, requests: sums.requests / seconds, queries: sums.queries / seconds, prevented: sums.prevented / seconds, latency };
  }

  // The replica's own clock measures best, as long as one and the same replica
  // sends the snapshots.
  #elapsed(snapshot, received) {
    const own = snapshot.at - this.#at;
    const here = (received - this.#received) / 1000;
    const seconds = this.#by === snapshot.fleet.replica && own > 0 && own < 2 * here + 1 ? own : here;
    const first = this.#received === undefined;
    [this.#at, this.#by, this.#received] = [snapshot.at, snapshot.fleet.replica, received];
    return first ? undefined : Math.max(seconds, 0.2);
  }
}

const nothing = { requests: 0, queries: 0, prevented: 0, buckets: new Map() };

function countsOf(replica) {
  const buckets = new Map();
  let normal = 0;
  for (const [role, list] of Object.entries(replica.latency)) {
    for (const bucket of list) {
      buckets.set(`${role} ${bucket.to_ms}`, { role, from: bucket.from_ms, to: bucket.to_ms, count: bucket.count });
      if (role === 'normal') normal += bucket.count;
    }
  }
  return { requests: replica.stats.total_requests + normal, queries: queriesOf(replica.stats), prevented: replica.stats.queries_prevented, buckets };
}

// queriesOf counts what a replica asked its database, and a proxy its upstream.
export function queriesOf(stats) {
  return (stats.database?.queries ?? 0) + (stats.upstream?.requests ?? 0);
}

// risen is by how much a count rose; one that fell began again at zero.
function risen(before, now) {
  return now >= before ? now - before : now;
}

function total(buckets) {
  return buckets.reduce((sum, bucket) => sum + bucket.count, 0);
}

// percentile takes the requests of a bucket for spread evenly over it.
export function percentile(buckets, share) {
  const sorted = [...buckets].sort((a, b) => a.to - b.to);
  const merged = [];
  for (const bucket of sorted) {
    if (merged.at(-1)?.to === bucket.to) merged.at(-1).count += bucket.count;
    else merged.push({ ...bucket });
  }
  const rank = share * total(merged);
  let below = 0;
  for (const bucket of merged) {
    if (below + bucket.count >= rank) return bucket.from + (bucket.to - bucket.from) * ((rank - below) / bucket.count);
    below += bucket.count;
  }
  return merged.at(-1)?.to;
}
