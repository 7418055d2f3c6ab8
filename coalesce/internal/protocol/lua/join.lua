-- join: take the key's lease, or learn who holds it.
-- KEYS  lease, attempts, latest, detached lease of the flight
-- ARGV  flight, replica, lease TTL (ms), how long a death is counted (ms), most attempts, MaxAge (µs), prefix of result keys,
--       '' when nobody observes the flight, else '+' and its trace
-- reply {'lead', attempt, start (µs)} · {'follow', flight, remaining TTL (ms)} · {'done', outcome, age (µs), trace of its flight} · {'poisoned', attempts} · {'over'}
--       to who observes: {'follow', flight, remaining TTL (ms), now (µs), trace of the flight}
-- A lease is: joined (0 or 1), flight id (22 characters), attempt, start (µs), replica, trace. The trace stands after
-- the last line feed: the replica's name may have line feeds, a trace has none.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local max_age = tonumber(ARGV[6])
if max_age > 0 then
  local latest = redis.pcall('GET', KEYS[3])
  if type(latest) == 'string' then
    local stored = redis.pcall('HMGET', ARGV[7] .. latest, 'earliest', 'outcome', 'trace')
    if stored.err == nil and stored[1] and stored[2] then
      local age = now - (tonumber(stored[1]) or 0)
      if age >= 0 and age <= max_age then
        return {'done', stored[2], age, stored[3] or ''}
      end
    end
  end
end

local lease = redis.pcall('GET', KEYS[1])
if type(lease) == 'string' and string.match(lease, '^[01]%S+ ') and string.len(lease) > 23 then
  local holder = string.sub(lease, 2, 23)
  if holder == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    local attempt, start = string.match(lease, ' (%d+) (%d+)')
    return {'lead', tonumber(attempt) or 1, tonumber(start) or now}
  end
  local ttl = redis.call('PTTL', KEYS[1])
  if ttl < 0 then
    ttl = tonumber(ARGV[3])
    redis.call('PEXPIRE', KEYS[1], ttl)
  end
  if string.sub(lease, 1, 1) == '0' then
    redis.call('SETRANGE', KEYS[1], 0, '1')
  end
  if ARGV[8] == '' then
    return {'follow', holder, ttl}
  end
  return {'follow', holder, ttl, now, string.match(lease, '\n([!-~]*)$') or ''}
end

-- A join that its sender has given up may come after the abandon of its flight. If it
-- took the lease now, nobody would release it.
if redis.pcall('GET', KEYS[4]) == '-' then
  return {'over'}
end

local attempts = redis.pcall('GET', KEYS[2])
attempts = type(attempts) == 'string' and tonumber(attempts) or 0
if attempts >= tonumber(ARGV[5]) then
  -- Nothing is written: the count must run out, even when callers come all the time.
  return {'poisoned', attempts}
end
attempts = attempts + 1
redis.call('SET', KEYS[2], attempts, 'PX', ARGV[4])
redis.call('SET', KEYS[1], '0' .. ARGV[1] .. ' ' .. attempts .. ' ' .. string.format('%.0f', now) .. ' ' .. ARGV[2] .. '\n' .. string.sub(ARGV[8], 2), 'PX', ARGV[3])
return {'lead', attempts, now}
