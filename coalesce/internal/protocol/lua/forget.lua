-- forget: make sure that no caller joins the key's present flight or takes its last outcome.
-- KEYS  lease, latest, attempts; on one server also the counter of forgotten keys
-- ARGV  prefix of detached leases, control channel, notice
-- reply {when the counter began (µs), the number of this key}; {0, 0} on a Cluster
-- The flight gets a detached lease, so that those who wait for it still see it run: its mark,
-- and how many have joined it. Its attempt must not count against the next flight. The number
-- stands at the end of the notice, so that a replica whose subscription was lost can tell
-- whether it missed any. On a Cluster, whose counter has another slot, a count tells the replicas.
local lease = redis.pcall('GET', KEYS[1])
local ttl = redis.call('PTTL', KEYS[1])
local attempts = redis.pcall('HGETALL', KEYS[3])
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
if #attempts > 0 then
  -- Redis may have lost the lease of a flight that runs: then it is not due.
  local time = redis.call('TIME')
  for i = 1, #attempts, 2 do
    local left = (tonumber(attempts[i + 1]) or 0) - time[1] * 1000 - math.floor(time[2] / 1000)
    if left > 0 then
      redis.call('SET', ARGV[1] .. attempts[i], '19999l', 'PX', left)
    end
  end
end
local lasts
if type(lease) == 'string' then
  lasts = tonumber(string.match(lease, '^%d%d%d%d %d+ %d+ (%d+) %S', 24))
end
if lasts then
  -- No lease lives for longer than its leader asked for, even if the server's clock was set back.
  if ttl < 1 or ttl > lasts then
    ttl = lasts
  end
  redis.call('SET', ARGV[1] .. string.sub(lease, 2, 23), string.sub(lease, 1, 1) .. string.sub(lease, 24, 27), 'PX', ttl)
end
if not KEYS[4] then
  return {0, 0}
end
local counter = redis.pcall('HMGET', KEYS[4], 'began', 'n')
local began, n = tonumber(counter[1]), tonumber(counter[2])
if not began or not n then
  local time = redis.call('TIME')
  began, n = time[1] * 1000000 + time[2], 0
  redis.call('DEL', KEYS[4])
end
n = n + 1
redis.call('HSET', KEYS[4], 'began', string.format('%.0f', began), 'n', n)
redis.call('PUBLISH', ARGV[2], ARGV[3] .. string.format('%.0f %.0f', began, n))
return {began, n}
