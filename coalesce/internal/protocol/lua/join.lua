-- join: take the key's lease, or learn who holds it.
-- KEYS  lease, attempts, whether the flight is over (that name ends with the flight), and, with MaxAge, latest
-- ARGV  lease TTL (ms), how long a death is counted (ms), what stands in the lease from its TTL on, but the trace,
--       three numbers: most attempts, for how long an outcome that cannot be shared is remembered (ms), and MaxAge (µs);
--       if somebody observes the flight, '+' and its trace
-- reply now (µs): it leads, as the first · {'lead', attempt, now (µs)} · {'follow', flight, remaining TTL (ms), now (µs)} ·
--       {'done', outcome, age (µs), trace of its flight} · {'poisoned', deaths} · {'over'} · {'alone', why}
--       to who observes: {'follow', flight, remaining TTL (ms), now (µs), trace of the flight}
-- A lease is: joined (0 or 1), flight id (22 characters), how many have joined and not left (4 digits; 9999: not known),
-- attempt, start (µs), its TTL (ms), tag, replica, trace. The trace stands after the last line feed: the replica's name
-- may have line feeds, a trace has none.
-- In its place may stand '!' and why the key's last outcome could not be shared. The tag says who can read an outcome:
-- those with the same one; '-' is not known.
-- What MaxAge keeps is a hash: the last outcome, or a notice that it is stored, when it finished, and its trace.
-- The attempts are a hash: the flights that had no outcome yet, each with when its lease is due (ms). After that and a space
-- stand, if the key was forgotten meanwhile, joined and how many, as in a lease; and 'l' if the flight has lost its lease.
-- Most joins follow, or find the key free: what these do is written to cost the server little. A local
-- name is found faster than a field, to print a large number takes longer than to read a key, and each
-- argument costs, too. Where others have joined already only their count is written.
local redis, string, key = redis, string, KEYS[1]
local call, sub = redis.call, string.sub
local flight = sub(KEYS[3], -22)
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

if KEYS[4] then
  local latest = redis.pcall('HMGET', KEYS[4], 'finished', 'outcome', 'trace')
  if latest.err == nil and latest[1] and latest[2] then
    local age = now - (tonumber(latest[1]) or 0)
    if age >= 0 and age <= tonumber((string.match(ARGV[4], '%d+$'))) then
      return {'done', latest[2], age, latest[3] or ''}
    end
  end
end

local lease = redis.pcall('GET', key)
local lasts, tag
if type(lease) == 'string' then
  lasts, tag = string.match(lease, '^%d%d%d%d %d+ %d+ (%d+) (%S+) ', 24)
end
if lasts then
  lasts = tonumber(lasts)
  local holder = sub(lease, 2, 23)
  if holder == flight then
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
    redis.pcall('HSET', KEYS[2], flight, string.format('%.0f', now / 1000 + ARGV[1]))
    return {'lead', tonumber(string.match(lease, '%d+', 29)), now}
  end
  -- It is not marked as joined: its outcome would be of no use here.
  if tag ~= '-' and tag ~= string.match(ARGV[3], '^%d+ (%S+)') then
    return {'alone', 'incompatible'}
  end
  local ttl = call('PTTL', key)
  -- No lease lives for longer than its leader asked for, even if the server's clock was set back.
  if ttl < 0 or ttl > lasts then
    ttl = lasts
    call('PEXPIRE', key, ttl)
    -- When it is gone, what stands among the attempts would keep its followers for another TTL.
    local attempt = redis.pcall('HGET', KEYS[2], holder)
    if type(attempt) == 'string' then
      call('HSET', KEYS[2], holder, (string.gsub(attempt, '^%d+', string.format('%.0f', now / 1000 + ttl))))
    end
  end
  local count = sub(lease, 24, 27) + 1
  if count == 1 then
    call('SETRANGE', key, 0, '1' .. holder .. '0001')
  elseif count < 10000 then
    call('SETRANGE', key, 23, string.format('%04d', count))
  end
  if not ARGV[5] then
    return {'follow', holder, ttl, now}
  end
  return {'follow', holder, ttl, now, string.match(lease, '\n([!-~]*)$') or ''}
end

if type(lease) == 'string' and string.sub(lease, 1, 1) == '!' then
  local ttl, remembered = redis.call('PTTL', KEYS[1]), string.match(ARGV[4], ' (%d+) ')
  -- No mark lives for longer than it was made for, either.
  if ttl < 0 or ttl > tonumber(remembered) then
    redis.call('PEXPIRE', KEYS[1], remembered)
  end
  return {'alone', string.sub(lease, 2)}
end

-- A join that its sender has given up may come after the abandon of its flight. If it
-- took the lease now, nobody would release it.
if redis.pcall('GET', KEYS[3]) == '-' then
  return {'over'}
end

local strikes = redis.pcall('HGETALL', KEYS[2])
if strikes.err then
  redis.call('DEL', KEYS[2])
  strikes = {}
end
-- A leader that lives moves the time when its lease is due. So one that is past is a death,
-- and one that is to come a lease that Redis lost. A flight that was forgotten counts no more.
-- A lease may go some ms before it is due: Redis takes another reading of its clock for that.
local early = 10
local deaths = 0
for i = 1, #strikes, 2 do
  -- Where nothing matches, some interpreters return nothing: brackets make that nil.
  local ends = tonumber((string.match(strikes[i + 1], '^(%d+)[ l]*$')))
  if ends and ends <= now / 1000 + early and strikes[i] ~= flight then
    deaths = deaths + 1
  end
  -- A join that comes a second time, late, may find that its flight was forgotten meanwhile.
  if strikes[i] == flight and string.find(strikes[i + 1], '^%d+ %d') then
    return {'over'}
  end
end
if deaths > 0 and deaths >= tonumber((string.match(ARGV[4], '^%d+'))) then
  -- Nothing is counted: the deaths must run out, even when callers come all the time.
  local ttl = redis.call('PTTL', KEYS[2])
  if ttl < 0 or ttl > tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[2], ARGV[2])
  end
  return {'poisoned', deaths}
end
call('HSET', KEYS[2], flight, string.format('%.0f', now / 1000 + ARGV[1]))
call('PEXPIRE', KEYS[2], ARGV[2])
local mine = string.format('0%s0000 %d %s%06d ', flight, deaths + 1, time[1], time[2]) .. ARGV[3]
if ARGV[5] then
  mine = mine .. sub(ARGV[5], 2)
end
call('SET', key, mine, 'PX', ARGV[1])
if deaths == 0 then
  return now
end
return {'lead', deaths + 1, now}
