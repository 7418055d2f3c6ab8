-- peek: what became of a flight.
-- KEYS  lease, result of the flight, detached lease of the flight, attempts
-- ARGV  flight, lease TTL (ms)
-- reply {'done', outcome} · {'running', remaining TTL (ms)} · {'over'} it was given up · {'gone'} Redis has nothing of it
local outcome = redis.pcall('HGET', KEYS[2], 'outcome')
if type(outcome) == 'string' then
  return {'done', outcome}
end
local key, lasts
local lease = redis.pcall('GET', KEYS[1])
if type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1] then
  key, lasts = KEYS[1], tonumber(string.match(lease, '^%d%d%d%d %d+ %d+ (%d+) %S', 24) or ARGV[2])
else
  local detached = redis.pcall('GET', KEYS[3])
  if detached == '-' then
    return {'over'}
  end
  lasts = tonumber(ARGV[2])
  if type(detached) ~= 'string' then
    -- Redis may have lost the lease of a flight that runs. Then its leader takes it again, or
    -- keeps a detached one, before it was due; so does no leader that has died.
    local due = tonumber(redis.pcall('HGET', KEYS[4], ARGV[1]))
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    if not due or due <= now then
      return {'gone'}
    end
    if due > now + lasts then
      due = now + lasts
      redis.call('HSET', KEYS[4], ARGV[1], string.format('%.0f', due))
    end
    return {'running', due - now}
  end
  key = KEYS[3]
end
-- No lease lives for longer than its leader asked for, even if the server's clock was set back.
local ttl = redis.call('PTTL', key)
if ttl < 0 or ttl > lasts then
  ttl = lasts
  redis.call('PEXPIRE', key, ttl)
end
return {'running', ttl}
