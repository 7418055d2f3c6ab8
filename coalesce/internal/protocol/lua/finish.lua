-- finish: release a flight's lease and hand its outcome to those who joined it.
-- KEYS  lease, attempts, result of the flight, latest, detached lease of the flight
-- ARGV  flight, outcome, notice that it is stored, channel, PUBLISH or SPUBLISH,
--       'inline' to publish the outcome, 'notice' for the notice,
--       hand-off TTL (ms), MaxAge (ms; 0 when the outcome must not be kept),
--       the earliest that the function ended by this server's clock (µs), trace of the flight, or '',
--       '' when the outcome can be shared, else why not, and for how long that is to be remembered (ms)
-- reply 1 it had its lease, or a detached one since the key was forgotten · 0 Redis had nothing of it · -1 it had lost its lease
-- A flight of which Redis has nothing cannot know whether anybody joined it, so it publishes.
-- Why the outcome cannot be shared stands in the lease's place: who comes next runs its own
-- function at once, and does not wait for another outcome that cannot be shared either.
local lease = redis.pcall('GET', KEYS[1])
local held = type(lease) == 'string' and string.sub(lease, 2, 23) == ARGV[1]
local joined = true
local vacant = held
local reply = 1
if held then
  joined = string.sub(lease, 1, 1) == '1'
  redis.call('DEL', KEYS[1])
  redis.pcall('HDEL', KEYS[2], ARGV[1])
  -- The key kills no leader. A flight that is not due yet lives without its lease, and may
  -- take it again.
  local others = redis.pcall('HGETALL', KEYS[2])
  if #others > 0 then
    local time = redis.call('TIME')
    for i = 1, #others, 2 do
      if (tonumber(others[i + 1]) or 0) <= time[1] * 1000 + time[2] / 1000 then
        redis.call('HDEL', KEYS[2], others[i])
      end
    end
  end
else
  local detached = redis.pcall('GET', KEYS[5])
  if type(detached) == 'string' and detached ~= '-' then
    joined = string.sub(detached, 1, 1) ~= '0'
    redis.call('DEL', KEYS[5])
    if string.sub(detached, -1) == 'l' then
      reply = -1
    end
  else
    reply = 0
  end
  -- The other attempts are those of who has led since, or of leaders that have died.
  if redis.pcall('HDEL', KEYS[2], ARGV[1]) == 1 then
    reply = -1
    vacant = not lease
  end
  -- An earlier try, which was to share the outcome, may have got through.
  if ARGV[11] ~= '' and redis.pcall('HEXISTS', KEYS[3], 'outcome') == 1 then
    joined = false
  end
end
if ARGV[11] ~= '' and vacant then
  redis.call('SET', KEYS[1], '!' .. ARGV[11], 'PX', ARGV[12])
end

local keep = held and tonumber(ARGV[8]) > 0
if joined or keep then
  redis.call('HSET', KEYS[3], 'finished', ARGV[9], 'outcome', ARGV[2])
  redis.call('PEXPIRE', KEYS[3], math.max(tonumber(ARGV[7]), tonumber(ARGV[8])))
end
if keep then
  redis.call('SET', KEYS[4], ARGV[1], 'PX', ARGV[8])
  if ARGV[10] ~= '' then
    redis.call('HSET', KEYS[3], 'trace', ARGV[10])
  end
end
if joined then
  local message = ARGV[3]
  if ARGV[6] == 'inline' then
    message = ARGV[2]
  end
  redis.call(ARGV[5], ARGV[4], message)
end
return reply
