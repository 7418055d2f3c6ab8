-- peek: what became of a flight.
-- KEYS  lease, result of the flight, whether the flight is over, attempts
-- ARGV  flight, lease TTL (ms)
-- reply {'done', outcome} · {'running', remaining TTL (ms), 1 when the key was forgotten meanwhile, else 0} ·
--       {'over'} it was given up · {'gone'} Redis has nothing of it
local outcome = redis.pcall('GET', KEYS[2])
if type(outcome) == 'string' then
  return {'done', outcome}
end
local lease = redis.pcall('GET', KEYS[1])
if type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1] then
  -- No lease lives for longer than its leader asked for, even if the server's clock was set back.
  local lasts = tonumber(string.match(lease, '^%d%d%d%d %d+ %d+ (%d+) %S', 24) or ARGV[2])
  local ttl = redis.call('PTTL', KEYS[1])
  if ttl < 0 or ttl > lasts then
    ttl = lasts
    redis.call('PEXPIRE', KEYS[1], ttl)
    -- When it is gone, what stands among the attempts would keep its followers for another TTL.
    local attempt = redis.pcall('HGET', KEYS[4], ARGV[1])
    if type(attempt) == 'string' then
      local time = redis.call('TIME')
      local due = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ttl)
      redis.call('HSET', KEYS[4], ARGV[1], (string.gsub(attempt, '^%d+', due)))
    end
  end
  return {'running', ttl, 0}
end
if redis.pcall('GET', KEYS[3]) == '-' then
  return {'over'}
end
-- The key may have been forgotten, and Redis may have lost the lease of a flight that runs. Then its
-- leader moves the time when it is due before it has come; so does no leader that has died.
local attempt = redis.pcall('HGET', KEYS[4], ARGV[1])
if type(attempt) ~= 'string' then
  return {'gone'}
end
local due, joined = string.match(attempt, '^(%d+)(.*)$')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not due or tonumber(due) <= now then
  return {'gone'}
end
local forgotten = 0
if string.find(joined, '^ %d') then
  forgotten = 1
end
local left = due - now
if left > tonumber(ARGV[2]) then
  left = tonumber(ARGV[2])
  redis.call('HSET', KEYS[4], ARGV[1], string.format('%.0f', now + left) .. joined)
end
return {'running', left, forgotten}
