-- peek: what became of a flight.
-- KEYS  lease, result of the flight, detached lease of the flight
-- ARGV  flight
-- reply {'done', outcome, age (µs)} · {'running', remaining TTL (ms)} · {'gone'}
local stored = redis.pcall('HMGET', KEYS[2], 'finished', 'outcome')
if stored.err == nil and stored[1] and stored[2] then
  local time = redis.call('TIME')
  local age = time[1] * 1000000 + time[2] - (tonumber(stored[1]) or 0)
  return {'done', stored[2], age}
end
local lease = redis.pcall('GET', KEYS[1])
if type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1] then
  local ttl = redis.call('PTTL', KEYS[1])
  if ttl > 0 then
    return {'running', ttl}
  end
end
local ttl = redis.call('PTTL', KEYS[3])
if ttl > 0 and redis.pcall('GET', KEYS[3]) ~= '-' then
  return {'running', ttl}
end
return {'gone'}
